package main

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/spf13/cobra"
)

func (a *app) serveCommand() *cobra.Command {
	var logFormat string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the authorization server",
		Long: "Runs the server until SIGINT or SIGTERM, then lets requests in flight finish.\n" +
			"SIGHUP reads the configuration again: policy, resources, certificates and the\n" +
			"switch for documents; what needs a restart is refused and changes nothing.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			started := time.Now()
			log, err := logger(logFormat)
			if err != nil {
				return err
			}
			cfg, err := server.Load(a.config, a.dev)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			s, err := server.New(ctx, cfg, server.Options{Logger: log})
			if err != nil {
				return err
			}
			defer s.Close()
			ln, err := cfg.Listener(ctx)
			if err != nil {
				return err
			}
			if a.dev {
				log.Warn("--dev is on: documents and issuers on loopback are accepted. Never run this where others can reach it.")
			}
			log.Info("ready", "issuer", cfg.Issuer, "listen", ln.Addr().String(), "took", time.Since(started).Round(time.Millisecond))
			return s.Run(ctx, ln, func() (*server.Config, error) { return server.Load(a.config, a.dev) })
		},
	}
	cmd.Flags().BoolVar(&a.dev, "dev", false, "accept documents and an http issuer on loopback; refuses to start on any other listener")
	cmd.Flags().StringVar(&logFormat, "log", "text", "log format: text or json")
	return cmd
}

func logger(format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	return nil, usage(fmt.Errorf("--log is %q; it must be text or json", format))
}

func (a *app) initCommand() *cobra.Command {
	o := server.InitOptions{}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a commented configuration and a key file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, key, err := server.Init(o)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "wrote  %s\n", config)
			fmt.Fprintf(out, "wrote  %s   keep a copy in a safe place, apart from the database\n\n", key)
			dev := ""
			if o.Dev() {
				dev = " --dev"
			}
			fmt.Fprintf(out, "Next:\n  bonafide config check%s -c %s\n  bonafide user add NAME -c %s\n  bonafide serve%s -c %s\n", dev, config, config, dev, config)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", ".", "where to write; it is made if need be")
	cmd.Flags().StringVar(&o.Issuer, "issuer", "https://auth.example.com", "public URL of the server; http on loopback is for serve --dev")
	cmd.Flags().StringVar(&o.Resource, "resource", "https://mcp.example.com/mcp", "identifier of the first protected MCP server")
	return cmd
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with the configuration"}
	check := &cobra.Command{
		Use:   "check",
		Short: "Read the configuration and say what is wrong with it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.Load(a.config, a.dev)
			if err != nil {
				return err
			}
			set, err := cfg.PolicySet()
			if err != nil {
				return err
			}
			if err := cfg.CheckFiles(); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "issuer     %s\n", cfg.Issuer)
			fmt.Fprintf(out, "listen     %s\n", cfg.Listen)
			fmt.Fprintf(out, "documents  %s\n", onOff(cfg.CIMD.Enabled))
			for _, r := range set.Resources {
				fmt.Fprintf(out, "resource   %s  (%s, %s)\n", r.ID, r.Name, counted(len(r.Scopes), "scope"))
			}
			fmt.Fprintf(out, "policy     %s, then %s\n", counted(len(set.Rules), "rule"), set.Default)
			for _, advice := range cfg.Advice() {
				fmt.Fprintf(out, "note       %s\n", advice)
			}
			fmt.Fprintln(out, "ok")
			return nil
		},
	}
	check.Flags().BoolVar(&a.dev, "dev", false, "check as for serve --dev")
	cmd.AddCommand(check)
	return cmd
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func onOff(b bool) string {
	if b {
		return "resolved"
	}
	return "off"
}
