//go:build interop

package jose

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// TestWycheproof says what becomes of each JWS of the Wycheproof file that
// WYCHEPROOF names, one JSON object a line. `make interop` runs it and compares
// with its baseline. The payloads of the vectors are no JSON objects, so that
// takeApart stands for Parse, which must not accept more.
func TestWycheproof(t *testing.T) {
	raw, err := os.ReadFile(os.Getenv("WYCHEPROOF"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Comment         string
			Public, Private json.RawMessage
			Tests           []struct {
				TcID                 int
				Comment, JWS, Result string
			}
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.TestGroups {
		key := g.Public
		if key == nil {
			key = g.Private // a shared secret
		}
		set, setErr := ParseRemoteSet(fmt.Appendf(nil, `{"keys":[%s]}`, key), SetLimits{})
		for _, c := range g.Tests {
			err := setErr
			if err == nil {
				err = judge(set, c.JWS)
			}
			if _, parseErr := Parse(c.JWS, 0); err != nil && parseErr == nil && len(set.Keys) > 0 {
				if m, _ := Parse(c.JWS, 0); m.Verify(set.Keys[0]) == nil {
					t.Errorf("Parse accepts what takeApart does not: %d", c.TcID)
				}
			}
			line, _ := json.Marshal(map[string]any{
				"id": c.TcID, "group": g.Comment, "comment": c.Comment, "want": c.Result == "valid", "got": err == nil, "why": fmt.Sprint(err),
				"dropped": len(set.Dropped) > 0 || setErr != nil,
			})
			fmt.Printf("wycheproof %s\n", line)
		}
	}
}

func judge(set Set, jws string) error {
	m, err := takeApart(jws, 0)
	if err != nil {
		return err
	}
	k, err := set.Find(m.Header.KID, m.Header.Alg)
	if err != nil {
		return err
	}
	return m.Verify(k)
}
