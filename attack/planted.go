package main

import (
	"fmt"
	"strings"
)

// weaknesses are the checks that the planted binary drops, one for each group, and
// the row that has to notice.
var weaknesses = map[string]struct{ name, row string }{
	"CU": {"fragment", "CU-07"}, "SD": {"address", "SD-02"}, "FT": {"type", "FT-18"}, "DO": {"clientid", "DO-01"}, "AZ": {"redirect", "AZ-01"},
	"TK": {"verifier", "TK-06"}, "RF": {"owner", "RF-05"}, "JK": {"signature", "JK-05"}, "CA": {"jti", "CA-01"}, "CN": {"origin", "CN-06"},
	"DV": {"device", "DV-09"}, "DP": {"bound", "DP-06"}, "RS": {"audience", "RS-01"}, "DS": {"budget", "DS-01"}, "FA": {"sync", "FA-03"},
}

// runPlanted runs for each group the row that its weakness is for, with the
// weakness and without: the one must be unsafe, the other safe.
func (w *world) runPlanted(groups []group) int {
	w.engine = sqlite{}
	missed := 0
	fmt.Printf("%-6s %-10s %-6s %-8s %-8s %s\n", "group", "dropped", "row", "with it", "without", "evidence")
	for _, g := range groups {
		weak, ok := weaknesses[g.name]
		if !ok {
			fmt.Printf("%-6s %-10s\n", g.name, "none")
			missed++
			continue
		}
		only := map[string]bool{weak.row: true}
		w.planted = ""
		sound := w.runGroup(g, only)
		w.planted = weak.name
		bad := w.runGroup(g, only)
		w.planted = ""
		state := func(out []outcome) (string, string) {
			if len(out) != 1 {
				return "missing", ""
			}
			text := strings.Join(out[0].evidence, " | ")
			if strings.Contains(text, "baseline") {
				return "broken", text
			}
			return out[0].state, text
		}
		without, _ := state(sound)
		with, text := state(bad)
		fmt.Printf("%-6s %-10s %-6s %-8s %-8s %s\n", g.name, weak.name, weak.row, with, without, head(strings.ReplaceAll(text, "\n", " "), 160))
		if with != "unsafe" || without != "safe" {
			missed++
		}
	}
	fmt.Printf("\nplanted: %d of %d weaknesses were caught\n", len(groups)-missed, len(groups))
	if missed > 0 {
		return 1
	}
	return 0
}
