package demo

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

// shapes shows what the resolver makes of the documents that real clients
// publish, served by the same document host with their own headers.
func (t *town) shapes(ctx context.Context) error {
	t.trace.chapter("3", "The same resolver reads the shapes of documents that real clients publish")
	cfg := t.internet.Config()
	r, err := cimd.New(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "  document\tproves itself by\tanswer goes to\tkept for\tnotes")
	for _, s := range cimdtest.Shapes() {
		t.internet.ServeShape(s)
		id, err := cfg.URL.Parse(s.ClientID)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		doc, err := r.Resolve(ctx, id)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\n", s.Name, strings.Join(doc.AuthMethods, " or "),
			where(doc), short(doc.Freshness.Lifetime), notes(doc))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	t.trace.say(strings.TrimRight(b.String(), "\n"))
	return nil
}

// short writes a duration without its empty parts.
func short(d time.Duration) string {
	s := d.Round(time.Second).String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

func where(d *cimd.Document) string {
	switch {
	case len(d.RedirectURIs) == 0:
		return "nowhere"
	case d.LoopbackOnly():
		return "this computer"
	case d.ApplicationType == "native":
		return "its host or this computer"
	}
	return host(d.RedirectURIs[0])
}

func notes(d *cimd.Document) string {
	if len(d.Warnings) == 0 {
		return "-"
	}
	w := d.Warnings[0]
	text := w.Member + " " + w.Text
	if n := len(d.Warnings) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
