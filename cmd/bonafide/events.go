package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

func (a *app) eventsCommand() *cobra.Command {
	var q store.EventQuery
	var kind string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print audit events as JSON lines, the oldest first",
		Long: "Prints audit events as JSON lines. A person who was refused has a reference such\n" +
			"as 7K2M-44QX: bonafide events --ref 7K2M-44QX shows why.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 0 {
				return usage(errors.New("--limit is 0 or more"))
			}
			if q.Type = audit.Type(kind); kind != "" && !slices.Contains(audit.Types, q.Type) {
				return usage(fmt.Errorf("--type: there are no events of the type %s; the types are %s", kind, joined(audit.Types)))
			}
			if err := spellRef(&q.Ref); err != nil {
				return usage(err)
			}
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				n, err := printEvents(ctx, cmd.OutOrStdout(), s, q)
				if err == nil && n == 0 && q.Ref != "" {
					return fmt.Errorf("no event has the reference %s; in a flood of refusals some are counted and not written (--type suppressed)", q.Ref)
				}
				return err
			})
		},
	}
	cmd.AddCommand(a.eventsVerify())
	cmd.Flags().StringVar(&q.Ref, "ref", "", "only events of this reference")
	cmd.Flags().StringVar(&kind, "type", "", "only this type, such as refusal, consent, token, reuse")
	cmd.Flags().Int64Var(&q.After, "after", 0, "only events after this sequence number")
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "at most so many; 0 is all")
	return cmd
}

var refPattern = regexp.MustCompile(`^[0-9A-Z]{4}-[0-9A-Z]{4}$`)

// spellRef writes a reference as it is stored: people read it aloud, and leave the
// hyphen out.
func spellRef(ref *string) error {
	s := strings.ToUpper(strings.TrimSpace(*ref))
	if len(s) == 8 && !strings.Contains(s, "-") {
		s = s[:4] + "-" + s[4:]
	}
	if s != "" && !refPattern.MatchString(s) {
		return fmt.Errorf("--ref: %s does not look like 7K2M-44QX", *ref)
	}
	*ref = s
	return nil
}

func joined(types []audit.Type) string {
	var out []string
	for _, t := range types {
		out = append(out, string(t))
	}
	return strings.Join(out, ", ")
}

func (a *app) eventsVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check that no event was altered or removed but for its age",
		Long: "Reads the whole audit log and checks that each event holds the hash over the one\n" +
			"before it. A log that lost its newest events looks whole: keep the number that\n" +
			"this prints, elsewhere, and compare.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				defer waiting(cmd.ErrOrStderr(), "reading the audit log")()
				intact, broken, err := s.VerifyEvents(ctx)
				if err != nil {
					return err
				}
				if broken != 0 {
					return fmt.Errorf("event %d does not follow the one before it: it, or one before it, was altered or removed", broken)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "whole: %d events, each follows the one before it\n", intact)
				return nil
			})
		},
	}
}

// printEvents writes what q asks for, page by page, and returns how many there were.
func printEvents(ctx context.Context, out io.Writer, s *store.Store, q store.EventQuery) (n int, err error) {
	const page = 1000
	for left := q.Limit; ; left -= page {
		q.Limit = page
		if left > 0 {
			q.Limit = min(left, page)
		}
		events, err := s.Events(ctx, q)
		if err != nil {
			return n, err
		}
		for _, e := range events {
			if _, err := out.Write(e.MarshalLine()); err != nil {
				return n, err
			}
			q.After = e.Seq
			n++
		}
		if len(events) < page || left == page {
			return n, nil
		}
	}
}

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The server's signing keys"}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List signing keys and when each is published, signs and retires",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				keys, err := s.SigningKeys(ctx)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, k := range keys {
					rows = append(rows, []string{k.KID, k.Alg, when(k.Publish), when(k.Sign), when(k.Retire)})
				}
				return table(cmd.OutOrStdout(), asJSON, []string{"kid", "alg", "published", "signs from", "retired"}, rows)
			})
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.AddCommand(a.keysRotate(), a.keysRetire(), list)
	return cmd
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
