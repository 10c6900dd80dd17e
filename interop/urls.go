package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bonafide-id/bonafide/cimd"
	whatwg "github.com/nlnwa/whatwg-url/url"
)

const whatwgVersion = "v0.6.2"

// urls gives the inputs of the web platform's URL tests, and many strings made
// from them, to cimd.Parse. Whatever it accepts, a browser must read the same
// way: same host, port and path, and nothing beside them. Strictness is no
// difference here; reading another host or path than a browser is one, and has
// no baseline but for what the WHATWG parser itself is known to get wrong.
func (b baseline) urls(ctx context.Context) (string, error) {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/nlnwa/whatwg-url").Output()
	if err != nil {
		return "", notRun("the module with the URL tests cannot be had")
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "urltestdata.json"))
	if err != nil {
		return "", notRun("the module carries no URL tests")
	}
	inputs, err := wptInputs(raw)
	if err != nil {
		return "", err
	}
	rules := map[string]cimd.URLRules{
		"strict": {},
		"open":   {AllowQuery: true, AllowRootPath: true, AllowIP: true, AllowTestNames: true, Loopback: true, Ports: everyPort()},
	}
	total, accepted, found := 0, 0, map[string]string{}
	for s := range candidates(inputs) {
		total++
		for name, r := range rules {
			id, err := r.Parse(s)
			if err != nil {
				continue
			}
			accepted++
			if class, what := differs(id); what != "" {
				found[cmp.Or(class, fmt.Sprintf("%q", s))] = name + ": " + what
			}
		}
	}
	if len(inputs) < 700 || accepted < 1000 {
		return "", fmt.Errorf("only %d inputs and %d accepted: this proves little", len(inputs), accepted)
	}
	detail, err := b.verdict("urls", total, found)
	return fmt.Sprintf("%s, %d accepted", detail, accepted), err
}

func everyPort() []uint16 {
	var out []uint16
	for p := 1; p < 1<<16; p++ {
		out = append(out, uint16(p))
	}
	return out
}

// wptInputs reads the inputs of urltestdata.json; strings in it are comments.
func wptInputs(raw []byte) ([]string, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, item := range list {
		var c struct{ Input string }
		if json.Unmarshal(item, &c) == nil {
			out = append(out, c.Input)
		}
	}
	return out, nil
}

// pieces are what is put into good URLs at every place, beside every byte.
var pieces = []string{
	"%2e", "%2E", "%2f", "%5c", "%00", "%0a", "%61", "%", "//", "/../", "/./", "/..", "..", ".", "@", ":", ":443", ":0443", ":80", "?", "#", "[", "]", "::1",
	"xn--", "0x7f", "127.1", "\u3002", "\uff0e", "\u00ad", "\u200d", "\u200b", "\u212a", "\u017f", "\ufeff", "\u00df", "\ufffd", "\\", "é", "1.2.3.4", "\t", "\r\n",
}

// candidates yields the inputs as they are, with https for their scheme, as a
// host, and as a path, and good URLs with something at every place.
func candidates(inputs []string) func(func(string) bool) {
	good := []string{
		"https://client.example.com/oauth/metadata.json", "https://client.example.com:8443/a/b", "https://a.bc/x",
		"https://localhost:3000/c.json", "http://127.0.0.1:3000/c.json", "https://[2001:db8::1]/c", "https://xn--bcher-kva.example.org/%C3%A9?q=1",
	}
	return func(yield func(string) bool) {
		for _, in := range inputs {
			rest := in
			if _, after, ok := strings.Cut(in, ":"); ok {
				rest = after
			}
			for _, s := range []string{in, "https:" + rest, "https://" + strings.TrimLeft(rest, "/"), "https://" + in + "/c.json", "https://client.example.com/" + rest, "https://client.example.com" + in} {
				if !yield(s) {
					return
				}
			}
		}
		for _, g := range good {
			for i := range len(g) + 1 {
				for _, p := range pieces {
					if !yield(g[:i]+p+g[i:]) || (i < len(g) && !yield(g[:i]+p+g[i+1:])) {
						return
					}
				}
				for c := range 256 {
					if !yield(g[:i]+string([]byte{byte(c)})+g[i:]) || (i < len(g) && !yield(g[:i]+string([]byte{byte(c)})+g[i+1:])) {
						return
					}
				}
			}
		}
	}
}

// differs says how a browser reads a client_id in another way than cimd does,
// and the class of the difference if it is a known one.
func differs(id cimd.ID) (class, what string) {
	u, err := whatwg.Parse(id.String())
	if err != nil {
		return "", "a browser refuses it: " + err.Error()
	}
	port := map[string]string{"https": "443", "http": "80"}[u.Scheme()]
	if u.Port() != "" {
		port = u.Port()
	}
	_, query, hasQuery := strings.Cut(id.String(), "?")
	if !hasQuery {
		query = ""
	} else if query != "" {
		query = "?" + query
	}
	for _, c := range []struct{ what, ours, theirs string }{
		{"host", strings.ToLower(id.Host()), u.Hostname()},
		{"port", fmt.Sprint(id.Port()), port},
		{"path", id.Path(), u.Pathname()},
		{"query", query, u.Search()},
		{"fragment", "", u.Hash()},
		{"user", "", u.Username() + u.Password()},
	} {
		if c.ours != c.theirs {
			if c.what == "query" && strings.ReplaceAll(c.ours, "'", "%27") == c.theirs {
				class = "apostrophe-in-query"
			}
			return class, fmt.Sprintf("the %s is %q here and %q in a browser", c.what, c.ours, c.theirs)
		}
	}
	return "", ""
}
