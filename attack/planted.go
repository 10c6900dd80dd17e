package main

import (
	"fmt"
	"strings"
)

// weakness is a check that the planted binary drops, and the row that has to
// notice.
type weakness struct{ name, row string }

// weaknesses are those of each group: at least one, and more where it has several
// mechanisms that are apart.
var weaknesses = map[string][]weakness{
	"CU": {{"fragment", "CU-07"}, {"dots", "CU-09"}},
	"SD": {{"address", "SD-02"}, {"port", "SD-28"}},
	"FT": {{"type", "FT-18"}, {"nostore", "FT-22"}},
	"DO": {{"clientid", "DO-01"}, {"twice", "DO-03"}},
	"AZ": {{"redirect", "AZ-01"}, {"pkce", "AZ-08"}},
	"TK": {{"verifier", "TK-06"}, {"holder", "TK-05"}},
	"RF": {{"owner", "RF-05"}, {"family", "RF-01"}},
	"JK": {{"signature", "JK-05"}, {"cooldown", "JK-09"}},
	"CA": {{"jti", "CA-01"}, {"aud", "CA-02"}},
	"CN": {{"origin", "CN-06"}, {"silent", "CN-04"}, {"pixels", "CN-15"}},
	"DV": {{"device", "DV-09"}, {"pace", "DV-02"}},
	"DP": {{"bound", "DP-06"}, {"proof", "DP-01"}},
	"RS": {{"audience", "RS-01"}, {"scope", "RS-10"}},
	"DS": {{"budget", "DS-01"}, {"coalesce", "DS-04"}},
	"FA": {{"sync", "FA-03"}},
}

// runPlanted runs for each weakness the row that it is for, with it and without:
// the one must be unsafe, the other safe.
func (w *world) runPlanted(groups []group) int {
	w.engine = sqlite{}
	all, missed := 0, 0
	fmt.Printf("%-6s %-10s %-6s %-8s %-8s %s\n", "group", "dropped", "row", "with it", "without", "evidence")
	for _, g := range groups {
		if len(weaknesses[g.name]) == 0 {
			fmt.Printf("%-6s %-10s\n", g.name, "none")
			all, missed = all+1, missed+1
		}
		for _, weak := range weaknesses[g.name] {
			all++
			if !w.notices(g, weak) {
				missed++
			}
		}
	}
	fmt.Printf("\nplanted: %d of %d weaknesses were caught\n", all-missed, all)
	if missed > 0 {
		return 1
	}
	return 0
}

// notices reports whether a group notices a weakness, and nothing where it is not.
func (w *world) notices(g group, weak weakness) bool {
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
	without, why := state(sound)
	with, text := state(bad)
	if without != "safe" {
		text = "without it: " + why
	}
	fmt.Printf("%-6s %-10s %-6s %-8s %-8s %s\n", g.name, weak.name, weak.row, with, without, head(strings.ReplaceAll(text, "\n", " "), 160))
	return with == "unsafe" && without == "safe"
}
