package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

// clientPin holds a client to one version of its document.
func (a *app) clientPin() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "pin CLIENT_ID",
		Short: "Hold a client to its document as it is now; later changes do not count",
		Long: "Fetches the document once, under the configuration's own rules, and goes by that\n" +
			"version until the client is unpinned. With --file the document is read from a file\n" +
			"instead, for a host that this server cannot reach. A key set at jwks_uri is still\n" +
			"read from there, so that keys can be rotated.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, rc, err := a.resolver()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			doc, err := readDocument(cmd, rc, args[0], file)
			if err != nil {
				return explain(out, err)
			}
			tell(out, doc)
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				err := s.PinClient(ctx, store.Client{ID: args[0], Name: doc.Name},
					store.Document{ClientID: args[0], Body: doc.Raw, Digest: doc.Digest, SecurityDigest: doc.SecurityDigest, AuthMethods: doc.AuthMethods, FetchedAt: time.Now()}, time.Now())
				if errors.Is(err, store.ErrConflict) {
					return fmt.Errorf("%s is a registered client, which has no document", args[0])
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "pinned  %s\n", args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "read the document from this file; nothing is fetched")
	cmd.Flags().BoolVar(&a.dev, "dev", false, "pin as for serve --dev")
	return cmd
}

// readDocument returns a client's document from its host, or from a file.
func readDocument(cmd *cobra.Command, rc cimd.Config, clientID, file string) (*cimd.Document, error) {
	id, err := rc.URL.Parse(clientID)
	if err != nil {
		return nil, err
	}
	if file != "" {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return cimd.Validate(id, body, rc.Profile, rc.Supported)
	}
	r, err := cimd.New(rc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer waiting(cmd.ErrOrStderr(), asking(id, rc))()
	return r.Resolve(cmd.Context(), id)
}

func (a *app) clientUnpin() *cobra.Command {
	return &cobra.Command{
		Use:   "unpin CLIENT_ID",
		Short: "Let a pinned client follow its document again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				err := s.UnpinClient(ctx, args[0], time.Now())
				if errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("%s is not pinned", args[0])
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "unpinned  %s\n", args[0])
				return nil
			})
		},
	}
}
