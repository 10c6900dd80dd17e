// Command bonafide is the authorization server and its tools: serve, init,
// config check, user, client, events, keys, demo. Each says what it did in a
// line, and its exit status can be trusted: 0 done, 1 refused or failed, 2 used
// wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

// run is main without the exit, so that tests can call it.
func run() int {
	// One P blocks on fsync: the writer and everybody else would take turns.
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	if err := root.ExecuteContext(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "bonafide: stopped; what was temporary is gone")
			return 130
		}
		fmt.Fprintln(os.Stderr, "bonafide:", err)
		if errors.Is(err, errUsage) {
			return 2
		}
		return 1
	}
	return 0
}

var errUsage = errors.New("used wrongly")

// usage marks an error as one of the command line.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w (try --help): %w", errUsage, err)
}

// app is what the commands share: the flags that every one of them takes.
type app struct {
	config string
	dev    bool
	loaded *server.Config // by withStore
}

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "bonafide",
		Short: "Where OAuth clients introduce themselves",
		Long: "Bonafide is an OAuth authorization server for clients whose client_id is the URL\n" +
			"of a document that says who they are, as MCP clients do.\n\n" +
			"Start with: bonafide demo",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.PersistentFlags().StringVarP(&a.config, "config", "c", "bonafide.yaml", "configuration file")
	root.AddCommand(a.serveCommand(), a.initCommand(), a.configCommand(), a.userCommand(), a.clientCommand(),
		a.eventsCommand(), a.keysCommand(), a.policyCommand(), demoCommand())
	strict(root)
	return root
}

// strict makes every mistake on the command line a wrong use: too many or too few
// arguments, and a command that does not exist, at any depth.
func strict(cmd *cobra.Command) {
	check := cmd.Args
	if cmd.HasSubCommands() {
		check = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		if cmd.RunE == nil {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error { return usage(check(cmd, args)) }
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
