package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
)

// withStore opens the store of the configuration for one command. The server may
// be running, with --dev or without: both write through the same database.
func (a *app) withStore(cmd *cobra.Command, do func(ctx context.Context, s *store.Store) error) error {
	cfg, err := server.Load(a.config, false)
	if err != nil {
		var devErr error
		if cfg, devErr = server.Load(a.config, true); devErr != nil {
			return err
		}
	}
	a.loaded = cfg
	if err := cfg.CheckFolder(); err != nil {
		return err
	}
	ctx := cmd.Context()
	s, err := store.Open(ctx, store.Config{Path: cfg.StorePath()})
	if err != nil {
		return cfg.NotOpened(err)
	}
	defer s.Close()
	return do(ctx, s)
}

// table writes rows in columns, or as JSON lines when asked.
func table(w io.Writer, asJSON bool, header []string, rows [][]string) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, r := range rows {
			m := map[string]string{}
			for i, h := range header {
				m[strings.ReplaceAll(h, " ", "_")] = r[i]
			}
			if err := enc.Encode(m); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	writeRow(tw, header)
	for _, r := range rows {
		writeRow(tw, r)
	}
	return tw.Flush()
}

func writeRow(w io.Writer, cells []string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, printable(c))
	}
	fmt.Fprintln(w)
}

// printable keeps what strangers wrote from steering the terminal (AD-07).
func printable(s string) string {
	out := []rune{}
	for _, r := range s {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) || (r >= 0x200b && r <= 0x200f) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			r = '\uFFFD'
		}
		if out = append(out, r); len(out) >= 200 {
			return string(out) + "…"
		}
	}
	return string(out)
}
