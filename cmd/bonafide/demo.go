package main

import (
	"fmt"
	"os"

	"github.com/bonafide-id/bonafide/internal/demo"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: an unregistered MCP client signs a person in and calls a tool",
		Long: "Starts a document host, the authorization server, a protected MCP server and an MCP\n" +
			"client on loopback, prints a URL to click and tells what happens as it happens.\n" +
			"Everything is temporary. With --headless the program plays the person and the last\n" +
			"line is \"demo: ok\" if, and only if, the whole example happened.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Headless && !cmd.Flags().Changed("https") {
				o.HTTPS = true
			}
			o.Out = cmd.OutOrStdout()
			o.Color = term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""
			err := demo.Run(cmd.Context(), o)
			if err != nil && cmd.Context().Err() != nil && !o.Headless {
				fmt.Fprintln(o.Out, "\nStopped. Nothing of it is left.")
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&o.Headless, "headless", false, "play the person too, over HTTP, and check the outcome")
	cmd.Flags().BoolVar(&o.HTTPS, "https", false, "serve over https with the throw-away CA (default with --headless); browsers will warn")
	return cmd
}
