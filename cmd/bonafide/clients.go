package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/spf13/cobra"
)

func (a *app) clientCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "client", Short: "Clients: list, add, check, pin, block, allow"}
	cmd.AddCommand(a.clientList(), a.clientAdd(), a.clientCheck(), a.clientPin(), a.clientUnpin(),
		a.clientState("block", directory.StateBlocked, "Block a client: it is refused from now on, and its grants end at once"),
		a.clientState("allow", directory.StateAllowed, "Let a blocked client come back; people have to agree again"))
	return cmd
}

func (a *app) clientList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the clients that were registered, or that somebody has agreed to",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				var rows [][]string
				for after := ""; ; {
					clients, err := s.Clients(ctx, after, 500)
					if err != nil {
						return err
					}
					for _, c := range clients {
						document := "-"
						if c.Version > 0 {
							document = fmt.Sprintf("version %d", c.Version)
						}
						if c.Pinned > 0 {
							document += ", pinned"
						}
						rows = append(rows, []string{c.ID, c.Name, c.Source, c.State, c.Created.Format(time.DateOnly), c.LastUsed.Format(time.DateOnly), document})
						after = c.ID
					}
					if len(clients) < 500 {
						return table(cmd.OutOrStdout(), asJSON, []string{"client_id", "name", "source", "state", "since", "used", "document"}, rows)
					}
				}
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func (a *app) clientAdd() *cobra.Command {
	var c store.Client
	var secret bool
	var keys string
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Register a client that has no document",
		Long: "Registers a client under an opaque id, for clients that do not publish a document.\n" +
			"With --secret a secret is made and printed once; with --jwks the client signs\n" +
			"assertions; with neither it is public and has PKCE alone.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.ID, c.Source, c.State = args[0], directory.SourceRegistered, directory.StateAllowed
			err := checkRegistration(&c)
			if err != nil {
				return usage(err)
			}
			if secret && keys != "" {
				return usage(errors.New("give --secret or --jwks, not both: a client proves itself in one way"))
			}
			plain := ""
			c.AuthMethods = []string{oauth.MethodNone}
			if keys != "" {
				if c.JWKS, err = readKeys(keys); err != nil {
					return err
				}
				c.AuthMethods = []string{oauth.MethodPrivateKeyJWT}
			}
			if secret {
				plain, c.SecretHash = clientauth.NewSecret()
				c.AuthMethods = []string{oauth.MethodSecretBasic, oauth.MethodSecretPost}
			}
			if err := needKeys(&c); err != nil {
				return usage(err)
			}
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				if err := notAnAccount(ctx, s, c.ID); err != nil {
					return err
				}
				if err := s.RegisterClient(ctx, c, time.Now()); errors.Is(err, store.ErrConflict) {
					return fmt.Errorf("there is a client with the id %s already", c.ID)
				} else if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "registered  %s\n", c.ID)
				if secret {
					fmt.Fprintf(out, "secret      %s   (shown once; only its hash is kept)\n", plain)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&c.Name, "name", "", "what people call it")
	cmd.Flags().StringSliceVar(&c.RedirectURIs, "redirect", nil, "redirect URI; repeat for more")
	cmd.Flags().StringSliceVar(&c.GrantTypes, "grant", []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}, "grant types")
	cmd.Flags().BoolVar(&secret, "secret", false, "make a client secret")
	cmd.Flags().StringSliceVar(&c.PostLogoutRedirectURIs, "post-logout-redirect", nil, "where people may go after signing out here; repeat for more")
	cmd.Flags().StringVar(&c.BackchannelLogoutURI, "backchannel-logout", "", "https URL that is told when a session has ended")
	cmd.Flags().StringVar(&keys, "jwks", "", "file with the client's public keys (a JWK Set), for private_key_jwt")
	return cmd
}

// readKeys reads a JWK Set and refuses one that holds a private key.
func readKeys(file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	set, err := jose.ParseSet(raw, jose.SetLimits{})
	if err != nil {
		return nil, fmt.Errorf("--jwks %s: %w", file, err)
	}
	if len(set.Keys) == 0 {
		return nil, fmt.Errorf("--jwks %s: there is no key in it that can be used", file)
	}
	return raw, nil
}

// checkRegistration refuses what could be taken for a document's client, and
// redirect URIs that no client could use here.
func checkRegistration(c *store.Client) error {
	if strings.Contains(c.ID, "://") {
		return errors.New("a registered id is not a URL: a URL is looked up as a document (URL-12)")
	}
	if c.ID == "" || len(c.ID) > 256 || strings.ContainsFunc(c.ID, func(r rune) bool { return r <= 0x20 || r > 0x7e }) {
		return errors.New("an id is 1 to 256 visible ASCII characters")
	}
	for _, g := range c.GrantTypes {
		if !slices.Contains(registrable, g) {
			return fmt.Errorf("--grant %s is not known; the grants are %s", g, strings.Join(registrable, ", "))
		}
	}
	if len(c.RedirectURIs) == 0 && slices.Contains(c.GrantTypes, oauth.GrantAuthorizationCode) {
		return errors.New("give at least one --redirect")
	}
	for _, u := range c.RedirectURIs {
		if err := directory.CheckRedirect(u); err != nil {
			return fmt.Errorf("--redirect %s: %w", u, err)
		}
	}
	for _, u := range c.PostLogoutRedirectURIs {
		if err := directory.CheckRedirect(u); err != nil {
			return fmt.Errorf("--post-logout-redirect %s: %w", u, err)
		}
	}
	if u := c.BackchannelLogoutURI; u != "" && !strings.HasPrefix(u, "https://") {
		return fmt.Errorf("--backchannel-logout %s: it must be an https URL", u)
	}
	return nil
}

// registrable are the grant types that a registered client can have.
var registrable = []string{
	oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials,
	oauth.GrantDeviceCode, oauth.GrantJWTBearer, oauth.GrantTokenExchange,
}

// needKeys refuses a client that could not use its grants: where no person agrees,
// the client has to authenticate (TOK-17).
func needKeys(c *store.Client) error {
	for _, g := range []string{oauth.GrantClientCredentials, oauth.GrantJWTBearer, oauth.GrantTokenExchange} {
		if slices.Contains(c.GrantTypes, g) && slices.Contains(c.AuthMethods, oauth.MethodNone) {
			return fmt.Errorf("--grant %s is for clients that authenticate; give --secret or --jwks", g)
		}
	}
	return nil
}

// notAnAccount refuses an id that is the identifier of an account: in a token of
// the client it would look like that person (TOK-18).
func notAnAccount(ctx context.Context, s *store.Store, id string) error {
	_, err := s.UserByID(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s is the identifier of an account", id)
	}
	return err
}

func (a *app) clientState(verb, state, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " CLIENT_ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				note := ""
				if _, err := s.Client(ctx, args[0]); errors.Is(err, store.ErrNotFound) {
					if state != directory.StateBlocked || !cimd.LooksLikeURL(args[0]) {
						return fmt.Errorf("there is no client %s here; see bonafide client list", args[0])
					}
					note = "   (nobody has used it here yet)"
				} else if err != nil {
					return err
				}
				if err := s.SetClientState(ctx, args[0], state, reason, time.Now()); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%sed  %s%s\n", strings.TrimSuffix(verb, "e"), args[0], note)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "kept with the client and in the audit log")
	return cmd
}
