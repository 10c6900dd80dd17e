package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

func TestRun(t *testing.T) {
	net := cimdtest.New(t)
	host := net.Host("calendar.test")
	good := host.ServeClient("/client.json", map[string]any{
		"client_name": "Calendar", "grant_types": []string{"authorization_code", "implicit"},
	}, "Cache-Control", "max-age=600")
	nameless := host.ServeClient("/nameless.json", map[string]any{"client_name": nil})

	var out bytes.Buffer
	ok, err := run(t.Context(), net.Config(), []string{good, nameless}, &out)
	if err != nil || !ok {
		t.Errorf("good clients: %v, %v", ok, err)
	}
	ok, err = run(t.Context(), net.Config(), []string{good, "https://calendar.test/none.json", "https://calendar.test/none.json", "nonsense"}, &out)
	if err != nil || ok {
		t.Errorf("bad clients: %v, %v", ok, err)
	}
	for _, want := range []string{
		"\"https://calendar.test/client.json\"\n  good      host calendar.test, calls itself Calendar\n  redirects https://calendar.test/cb\n  methods   none\n",
		"  fresh     10m0s (max-age=600",
		"  warning   grant_types",
		"calls itself (none)\n",
		"\"https://calendar.test/none.json\"\n  refused   gone CACHE-15: ",
		"  refused   backoff CACHE-15: ",
		"  again in  1s\n",
		"\"nonsense\"\n  refused   client_id_url URL-01: ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	bad := net.Config()
	bad.Limits.DocumentBytes = 1 << 30
	if _, err := run(t.Context(), bad, nil, &out); err == nil {
		t.Error("a bad configuration was accepted")
	}
}
