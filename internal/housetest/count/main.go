// Command count reads the output of "go test -json" on standard input, prints a
// line for each package, the output of what failed and the reason of what was
// skipped, and closes with the totals. It exits 1 when a test failed or none ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

func main() {
	sc := bufio.NewScanner(os.Stdin)
	sc.Buffer(nil, 16<<20)
	counts := map[string]int{}
	output := map[string][]string{}
	var skips, fails []string
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Println(sc.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
			if e.Action == "build-output" {
				fmt.Print(e.Output)
			}
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		if e.Test == "" {
			switch e.Action {
			case "pass":
				fmt.Printf("ok    %7.1fs  %s\n", e.Elapsed, e.Package)
			case "fail":
				fmt.Printf("FAIL  %7.1fs  %s\n", e.Elapsed, e.Package)
				fails = append(fails, key)
			}
			continue
		}
		counts[e.Action]++
		switch e.Action {
		case "fail":
			fails = append(fails, key)
		case "skip":
			skips = append(skips, key)
		}
		if e.Action == "pass" {
			delete(output, key)
		}
	}
	if err := sc.Err(); err != nil {
		fmt.Println("reading the test output:", err)
		os.Exit(1)
	}
	sort.Strings(skips)
	for _, s := range skips {
		fmt.Printf("skipped: %s: %s\n", s, strings.TrimSpace(strings.Join(output[s], " ")))
	}
	for _, f := range fails {
		fmt.Printf("\n--- %s\n%s", f, strings.Join(output[f], ""))
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
	if len(fails) > 0 || counts["pass"] == 0 {
		os.Exit(1)
	}
}
