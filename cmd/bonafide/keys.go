package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

func (a *app) keysRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Publish the next signing key now; it signs once caches have had time to see it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.Load(a.config, a.dev)
			if err != nil {
				return err
			}
			if err := server.RotateKeys(cmd.Context(), cfg); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "rotated: bonafide keys list shows from when the new key signs")
			return nil
		},
	}
}

func (a *app) keysRetire() *cobra.Command {
	return &cobra.Command{
		Use:   "retire KID",
		Short: "Withdraw a signing key at once, such as one that leaked; its tokens stop being good",
		Long: "Withdraws a signing key at once. A running server stops using and publishing it\n" +
			"within half a minute; resource servers refuse its tokens when they read the key\n" +
			"set again. Another key takes over.\n\n" +
			"A kid that begins with a hyphen, which only old databases have, goes behind two\n" +
			"hyphens: bonafide keys retire -- KID",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				err := s.WithdrawSigningKey(ctx, args[0], time.Now())
				if errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("there is no signing key %s; see bonafide keys list", args[0])
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "retired  %s\n", args[0])
				return nil
			})
		},
	}
}
