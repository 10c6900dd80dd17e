package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.FixedZone("", 3600))

func TestCleanForgesNothing(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"a plain value stays", "https://a.example/c?x=1&y=%0a<b>", "https://a.example/c?x=1&y=%0a<b>"},
		{"other scripts stay", "Łódź 東京 עברית é", "Łódź 東京 עברית é"},
		{"AD-07 a line break", "a\r\nb", `a\u000d\u000ab`},
		{"AD-07 a terminal sequence", "\x1b[2J\x07", `\u001b[2J\u0007`},
		{"AD-07 a C1 control", "a\u009bb", `a\u009bb`},
		{"AD-07 a line separator", "a\u2028b\u2029c", `a\u2028b\u2029c`},
		{"AD-07 a direction override", "gpj.\u202eexe\u2066", `gpj.\u202eexe\u2066`},
		{"AD-07 an invisible character", "a\u200bb\ufeffc\U000e0041", `a\u200bb\ufeffc\U000e0041`},
		{"AD-07 broken UTF-8", "a\xffb\xc3", `a\xffb\xc3`},
		{"a null", "a\x00b", `a\u0000b`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			e := Event{Type: Type(r.in), Ref: r.in, Client: r.in, User: r.in, Grant: r.in, Resource: r.in, IP: r.in, Rule: r.in, Code: r.in, Data: map[string]string{r.in: r.in}}
			got := e.Clean()
			want := Event{Time: got.Time, Type: Type(r.want), Ref: r.want, Client: r.want, User: r.want, Grant: r.want, Resource: r.want, IP: r.want, Rule: r.want, Code: r.want, Data: map[string]string{r.want: r.want}}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(got, got.Clean()); d != "" {
				t.Errorf("cleaning twice differs: %s", d)
			}
			line := e.MarshalLine()
			if bytes.IndexByte(line, '\n') != len(line)-1 || bytes.ContainsAny(line[:len(line)-1], "\x00\x1b\r\u2028") {
				t.Errorf("not one line: %q", line)
			}
		})
	}
}

func TestCleanCapsLengths(t *testing.T) {
	t.Run("AD-07 a megabyte is cut", func(t *testing.T) {
		long := strings.Repeat("é", 1<<19)
		data := map[string]string{}
		for i := range 1000 {
			data[fmt.Sprintf("%04d%s", i, long)] = long
		}
		e := Event{Type: TypeRefusal, Client: long, Ref: long, Data: data}.Clean()
		if len(e.Client) > MaxIdentifier || len(e.Ref) > MaxField || !strings.HasSuffix(e.Client, "é…") {
			t.Errorf("client %d bytes, ref %d bytes, end %q", len(e.Client), len(e.Ref), e.Client[len(e.Client)-6:])
		}
		if len(e.Data) != MaxData {
			t.Errorf("%d entries", len(e.Data))
		}
		for k, v := range e.Data {
			if len(k) > MaxDataKey || len(v) > MaxDataValue {
				t.Errorf("entry of %d and %d bytes", len(k), len(v))
			}
		}
		if n := len(e.MarshalLine()); n > 24<<10 {
			t.Errorf("the line has %d bytes", n)
		}
		if d := cmp.Diff(e, e.Clean()); d != "" {
			t.Error(d)
		}
	})
	t.Run("escapes count", func(t *testing.T) {
		if e := (Event{Ref: strings.Repeat("\x01", 300)}).Clean(); len(e.Ref) > MaxField {
			t.Errorf("%d bytes", len(e.Ref))
		}
	})
}

func TestNoSecretsInEvents(t *testing.T) {
	const jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EifQ.c2lnbmF0dXJl"
	t.Run("POL-07, attack TK-13: entries named like a secret are dropped", func(t *testing.T) {
		data := map[string]string{"method": "private_key_jwt", "status": "200", "kid": "abc"}
		want := map[string]string{"method": "private_key_jwt", "status": "200", "kid": "abc"}
		for _, k := range []string{"token", "access_token", "Refresh-Token", "secret", "client_secret", "assertion", "client_assertion", "code",
			"Code", "password", "passwd", "code_verifier", "Authorization", "cookie", "private_key"} {
			data[k] = "x"
		}
		if d := cmp.Diff(want, Event{Data: data}.Clean().Data); d != "" {
			t.Error(d)
		}
	})
	for _, r := range []struct {
		name, value string
		removed     bool
	}{
		{"POL-07, attack TK-13: a compact JWS", jws, true},
		{"POL-07 a JWS inside a text", "could not verify " + jws + " with key 1", true},
		{"POL-07 an Authorization header", "Bearer abcdefghijklmnop", true},
		{"POL-07 a Basic header", "basic dXNlcjpwYXNzd29yZA==", true},
		{"POL-07 a private key", "-----BEGIN PRIVATE KEY-----\nMIG", true},
		{"POL-07 a password hash", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", true},
		{"a challenge is no secret", `Bearer error="invalid_token"`, false},
		{"a thumbprint is no secret", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", false},
		{"a word is no secret", "eyJohn", false},
		{"a short pair is no JWS", "eyJa.b", false},
	} {
		t.Run(r.name, func(t *testing.T) {
			e := Event{Client: r.value, Code: r.value, Data: map[string]string{"why": r.value}}.Clean()
			for _, v := range []string{e.Client, e.Code, e.Data["why"]} {
				if (v == Removed) != r.removed {
					t.Errorf("%q became %q", r.value, v)
				}
			}
		})
	}
}

func TestMarshalLine(t *testing.T) {
	e := Event{Seq: 7, Time: noon, Type: TypeFetch, Ref: "7K2M-44QX", Client: "https://a.example/c?x=1&y=<b>", Data: map[string]string{"b": "2", "a": "1"}}
	want := `{"seq":7,"time":"2026-11-21T11:00:00.123456Z","type":"fetch","ref":"7K2M-44QX","client":"https://a.example/c?x=1&y=<b>","data":{"a":"1","b":"2"}}` + "\n"
	if got := string(e.MarshalLine()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	t.Run("a time that JSON cannot say does not lose the event", func(t *testing.T) {
		e := Event{Time: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), Type: TypeFetch}
		var got Event
		if err := json.Unmarshal(e.MarshalLine(), &got); err != nil || got.Type != TypeFetch {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestWhatEscapingSpellsIsCleanedToo(t *testing.T) {
	for _, r := range []struct {
		name string
		in   map[string]string
		want map[string]string
	}{
		{"AD-07 an escape that ends the name of a secret", map[string]string{"\x8cookie": "x", "\fredential": "x"}, map[string]string{}},
		{"AD-07 an escape that begins a JWS", map[string]string{"why": "\x0eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2EifQ."}, map[string]string{"why": Removed}},
		{"AD-07 a cut that leaves a credential alone", map[string]string{"why": "Bearer " + strings.Repeat("x", 600) + " y"}, map[string]string{"why": Removed}},
	} {
		t.Run(r.name, func(t *testing.T) {
			once := Event{Data: r.in}.Clean()
			if d := cmp.Diff(r.want, once.Data); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(once, once.Clean()); d != "" {
				t.Errorf("cleaning twice differs: %s", d)
			}
		})
	}
}

// FuzzMarshalLine: whatever stands in an event, its line is one line of JSON in
// plain sight and of a bounded length that says exactly what Clean keeps; no
// entry is named like a secret; cleaning is stable and leaves printable ASCII
// that is short and no secret as it is.
func FuzzMarshalLine(f *testing.F) {
	f.Add("a\nb", "k\x1b", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2EifQ.")
	f.Add("\u2028\u202e", "token", strings.Repeat("x", 5000))
	f.Add("\xff\xfe", "", "$argon2id$")
	f.Add("https://a.example/<&>\"\\", "\x8cookie", "Bearer "+strings.Repeat("x", 600)+" y")
	f.Add("\ufffd\U000e0041", "\x0cODE", "\x0eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2EifQ.")
	f.Fuzz(func(t *testing.T, client, key, value string) {
		e := Event{
			Seq: 3, Time: noon, Type: Type(value), Ref: key, Client: client, User: value, Grant: key, Resource: value, IP: client, Rule: key, Code: client,
			Data: map[string]string{key: value, client: key, "z" + key: client},
		}
		line := e.MarshalLine()
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' || len(line) > 64<<10 {
			t.Fatalf("not one short line: %q", line)
		}
		for _, r := range string(line[:len(line)-1]) {
			if unsafeRune(r) {
				t.Fatalf("%U in %q", r, line)
			}
		}
		once := e.Clean()
		if d := cmp.Diff(once, once.Clean()); d != "" {
			t.Fatal(d)
		}
		var got Event
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if d := cmp.Diff(once, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%q: %s", line, d)
		}
		for k := range got.Data {
			for _, s := range append(secretNames, "code") {
				if low := strings.ToLower(k); low == s || s != "code" && strings.Contains(low, s) {
					t.Fatalf("an entry is named %q", k)
				}
			}
		}
		if plain(client) && len(client) <= MaxField && !secretShape(client) && (once.Client != client || once.Code != client) {
			t.Fatalf("%q became %q and %q", client, once.Client, once.Code)
		}
	})
}
