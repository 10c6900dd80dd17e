package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

func (a *app) userConnections() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "connections NAME",
		Short: "List the apps that can act for an account",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUser(cmd, args[0], func(ctx context.Context, s *store.Store, u store.User) error {
				grants, err := allGrants(ctx, s, u.ID)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, c := range login.ConnectionsOf(grants) {
					for _, at := range c.Access {
						rows = append(rows, []string{c.ClientID, at.Resource, at.Scopes.String(), c.Since.Format(time.DateOnly), c.Used.Format(time.RFC3339)})
					}
				}
				return table(cmd.OutOrStdout(), asJSON, []string{"client", "resource", "scopes", "since", "used"}, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func allGrants(ctx context.Context, s *store.Store, userID string) ([]store.Grant, error) {
	var out []store.Grant
	for after := ""; ; {
		grants, err := s.Grants(ctx, userID, after, 500)
		if err != nil {
			return nil, err
		}
		out = append(out, grants...)
		if len(grants) < 500 {
			return out, nil
		}
		after = grants[len(grants)-1].ID
	}
}

func (a *app) userEnd() *cobra.Command {
	var client string
	cmd := &cobra.Command{
		Use:   "end NAME",
		Short: "End an account's sessions and connections, or with --client one connection",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUser(cmd, args[0], func(ctx context.Context, s *store.Store, u store.User) error {
				var n int
				end := func(ctx context.Context, s *store.Store) (err error) {
					n, err = server.EndAll(ctx, s, store.Whose{UserID: u.ID, ClientID: client}, time.Now())
					return err
				}
				if client != "" {
					if err := end(ctx, s); err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "ended  %s at %s: %d grants\n", u.Name, client, n)
					return nil
				}
				if err := a.endAccount(cmd, s, u, end); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "ended  %s: all sessions, %d grants\n", u.Name, n)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "end the connection with this client_id alone")
	return cmd
}

// endAccount does what ends the sessions of an account, and has the clients of
// those sessions told where any of them is known. That they cannot be told is no
// reason to leave a session open.
func (a *app) endAccount(cmd *cobra.Command, s *store.Store, u store.User, do func(context.Context, *store.Store) error) error {
	ctx := cmd.Context()
	grants, err := allGrants(ctx, s, u.ID)
	if err != nil {
		return err
	}
	told := false
	for _, g := range grants {
		told = told || g.SID != ""
	}
	if !told {
		return do(ctx, s)
	}
	done := false
	err = server.EndAccount(ctx, a.loaded, server.Options{}, u.ID, func(ctx context.Context, s *store.Store) error {
		err := do(ctx, s)
		done = err == nil
		return err
	})
	if err == nil || done {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "clients are not told: %v\n", err)
	return do(ctx, s)
}

// knows reports whether the configuration names an issuer, and takes its tenant.
func (a *app) knows(issuer, tenant string) bool {
	for _, u := range a.loaded.Upstream {
		if u.Issuer == issuer && tenant == "" {
			return true
		}
	}
	for _, i := range a.loaded.IDJAG.Issuers {
		if i.Issuer == issuer && (tenant == "" || slices.Contains(i.Tenants, tenant)) {
			return true
		}
	}
	return false
}

func (a *app) userLink() *cobra.Command {
	var issuer, tenant, subject string
	cmd := &cobra.Command{
		Use:   "link NAME",
		Short: "Link an account to the same person at another sign-in provider",
		Long: "Links an account to a subject at an upstream provider, so that the person can sign\n" +
			"in there, or at an issuer of identity assertions (id_jag), so that these count for\n" +
			"the person. The subject is the provider's own name for the person, often an opaque\n" +
			"one: the audit event of a refused sign-in shows it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(issuer, "http") || subject == "" {
				return usage(errors.New("give both --issuer, as in the configuration, and --subject"))
			}
			return a.withUser(cmd, args[0], func(ctx context.Context, s *store.Store, u store.User) error {
				now := time.Now()
				err := s.LinkIdentity(ctx, store.Identity{
					Issuer: issuer, Tenant: tenant, Subject: subject, UserID: u.ID, Email: u.Email, Created: now, LastSeen: now,
				}, nil, audit.Event{Time: now, Type: audit.TypeUser, User: u.ID, Code: "linked", Data: map[string]string{"issuer": issuer, "tenant": tenant, "subject": subject}})
				if errors.Is(err, store.ErrConflict) {
					return errors.New("that identity is linked to another account")
				}
				if err != nil {
					return err
				}
				note := ""
				if !a.knows(issuer, tenant) {
					note = "   (no upstream provider and no id_jag issuer of the configuration has that issuer, or that tenant)"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "linked  %s%s\n", u.Name, note)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&issuer, "issuer", "", "issuer of the provider, byte for byte as in the configuration")
	cmd.Flags().StringVar(&tenant, "tenant", "", "tenant of the person, for assertions of an issuer that several share")
	cmd.Flags().StringVar(&subject, "subject", "", "the provider's subject identifier of the person")
	return cmd
}
