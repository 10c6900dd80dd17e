package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Work with the policy that replicas on one PostgreSQL share"}
	apply := &cobra.Command{
		Use:   "apply",
		Short: "Put the policy and the resources of the configuration file in force on all replicas",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.Load(a.config, a.dev)
			if err != nil {
				return err
			}
			revision, published, err := server.ApplyPolicy(cmd.Context(), cfg, server.Options{})
			if err != nil {
				return err
			}
			if !published {
				fmt.Fprintf(cmd.OutOrStdout(), "unchanged  revision %d is in force and says the same\n", revision)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "published  revision %d\n", revision)
			return nil
		},
	}
	apply.Flags().BoolVar(&a.dev, "dev", false, "read the configuration as for serve --dev")
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the policy in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				p, err := s.NewestPolicy(ctx)
				if errors.Is(err, store.ErrNotFound) {
					return errors.New("no policy was published: the configuration file counts")
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "# revision %d of %s\n%s", p.Revision, p.At.Format("2006-01-02 15:04:05 MST"), p.Body)
				return nil
			})
		},
	}
	cmd.AddCommand(apply, show)
	return cmd
}
