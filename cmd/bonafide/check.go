package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/spf13/cobra"
)

// clientCheck previews what the server would make of a client, before anyone
// admits it: the same rules, the same fetch, the same validator.
func (a *app) clientCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check CLIENT_ID",
		Short: "Read a client's document as the server would, and say all that is to say about it",
		Long: "Fetches the document under the configuration's own rules and prints what the server\n" +
			"makes of it: what the client may use, how long the document is kept, each warning\n" +
			"with its rule, and what the policy says. With --file the document is read from a\n" +
			"file instead, and every defect is listed. Exits 1 if the client would be refused.\n\n" +
			"Where there is no bonafide.yaml and no -c, as on the machine of who makes a client,\n" +
			"it goes by the server's defaults and says nothing of a policy.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, rc, err := a.resolverOrDefault(cmd)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			id, err := rc.URL.Parse(args[0])
			if err != nil {
				return explain(out, err)
			}
			if file != "" {
				err = lintFile(out, id, file, rc)
			} else {
				err = fetchAndTell(cmd, id, rc)
			}
			if err != nil {
				return err
			}
			if cfg == nil {
				fmt.Fprintf(out, "policy     (there is no %s here: these are the defaults of a server)\n", a.config)
				return nil
			}
			set, err := cfg.PolicySet()
			if err != nil {
				return err
			}
			d := set.Decide(policy.Subject{ID: id.String(), Host: strings.ToLower(id.Host()), Port: id.Port()})
			fmt.Fprintf(out, "policy     %s (rule: %s)\n", d.Action, d.Rule)
			if d.Action != policy.Allow {
				return errors.New("the policy does not admit this client as it stands")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "read the document from this file; nothing is fetched")
	cmd.Flags().BoolVar(&a.dev, "dev", false, "check as for serve --dev")
	return cmd
}

// resolver returns the configuration and what it says about documents.
func (a *app) resolver() (*server.Config, cimd.Config, error) {
	cfg, err := server.Load(a.config, a.dev)
	if err != nil {
		return nil, cimd.Config{}, err
	}
	rc, err := cfg.Resolver()
	return cfg, rc, err
}

// resolverOrDefault is resolver for people without a server: where no configuration
// was named and none is here, the first result is nil and the second what servers
// have by default.
func (a *app) resolverOrDefault(cmd *cobra.Command) (*server.Config, cimd.Config, error) {
	cfg, rc, err := a.resolver()
	if !errors.Is(err, fs.ErrNotExist) || cfg != nil || cmd.Flags().Changed("config") {
		return cfg, rc, err
	}
	plain := server.Defaults()
	plain.Dev = a.dev
	rc, err = plain.Resolver()
	return nil, rc, err
}

func fetchAndTell(cmd *cobra.Command, id cimd.ID, rc cimd.Config) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	r, err := cimd.New(rc)
	if err != nil {
		return err
	}
	defer r.Close()
	defer waiting(cmd.ErrOrStderr(), asking(id, rc))()
	doc, err := r.Resolve(ctx, id)
	if err != nil {
		for _, w := range id.Warnings() { // a document that was read has them among its own
			finding(out, "warning", w.Rule, w.Member, w.Text)
		}
		return explain(out, err)
	}
	tell(out, doc)
	life := doc.Freshness.Lifetime.Round(time.Second).String() + ": " + doc.Freshness.Reason
	if doc.Freshness.Clamped != "" {
		life += ", held by the " + doc.Freshness.Clamped
	}
	fmt.Fprintf(out, "kept for   %s\n", life)
	if len(doc.JWKS) > 0 || doc.JWKSURI != "" {
		if _, err := r.Keys(ctx, doc, ""); err != nil {
			return explain(out, err)
		}
		fmt.Fprintln(out, "keys       found")
	}
	return nil
}

// asking says what takes time.
func asking(id cimd.ID, rc cimd.Config) string {
	return fmt.Sprintf("asking %s, for %s at most", printable(id.Host()), rc.Limits.Timeout)
}

func lintFile(out io.Writer, id cimd.ID, file string, rc cimd.Config) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	doc, findings := cimd.Lint(id, body, rc.Profile, rc.Supported)
	tooLarge := int64(len(body)) > rc.Limits.DocumentBytes
	if tooLarge {
		finding(out, "error", "FETCH-09", "", fmt.Sprintf("the document has %d bytes; the server reads %d", len(body), rc.Limits.DocumentBytes))
	}
	if doc != nil && !tooLarge {
		tell(out, doc)
		return nil
	}
	for _, f := range findings {
		finding(out, string(f.Severity), f.Rule, f.Member, f.Text)
	}
	return errors.New("the document is not valid")
}

func tell(out io.Writer, d *cimd.Document) {
	name := d.Name
	if name == "" {
		name = "(none; people see the host)"
	}
	fmt.Fprintf(out, "host       %s\n", cimd.DisplayHost(d.ID.Host()))
	fmt.Fprintf(out, "name       %s\n", printable(name))
	methods := strings.Join(d.AuthMethods, ", ")
	if methods == "" {
		methods = "none in common: it would be answered unauthorized_client"
	}
	fmt.Fprintf(out, "proves by  %s\n", methods)
	fmt.Fprintf(out, "grants     %s\n", strings.Join(d.GrantTypes, ", "))
	for _, u := range d.RedirectURIs {
		fmt.Fprintf(out, "redirect   %s\n", printable(u))
	}
	for _, w := range d.Warnings {
		finding(out, "warning", w.Rule, w.Member, w.Text)
	}
	fmt.Fprintf(out, "digest     %s\n", d.Digest)
}

func finding(out io.Writer, severity, rule, member, text string) {
	if member != "" {
		member += " "
	}
	fmt.Fprintf(out, "%-10s %s: %s%s\n", severity, rule, printable(member), printable(text))
}

// explain prints a refusal of the resolver with its rule, and for the person at
// this terminal also the cause that a stranger is never told.
func explain(out io.Writer, err error) error {
	var e *cimd.Error
	if !errors.As(err, &e) {
		return err
	}
	finding(out, "refused", e.Rule, "", e.Hint)
	if e.Err != nil {
		fmt.Fprintf(out, "because    %s\n", printable(e.Err.Error()))
	}
	return fmt.Errorf("refused: %s", e.Kind)
}
