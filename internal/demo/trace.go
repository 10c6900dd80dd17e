package demo

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/resource"
)

// trace tells what happens as it happens, one line a fact: who, what, and the
// rule that was checked.
type trace struct {
	mu    sync.Mutex // one line at a time
	out   io.Writer
	color bool
	names *strings.Replacer // of addresses
	seen  []audit.Event
}

func newTrace(out io.Writer, color bool) *trace {
	return &trace{out: out, color: color, names: strings.NewReplacer()}
}

// name makes the trace call addresses by the names of the cast.
func (t *trace) name(issuer, resource string) {
	t.names = strings.NewReplacer(host(resource), "github-app", host(issuer), "server")
}

const (
	dim   = "\x1b[2m"
	bold  = "\x1b[1m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	teal  = "\x1b[36m"
)

func (t *trace) paint(code, s string) string {
	if !t.color || s == "" {
		return s
	}
	return code + s + "\x1b[0m"
}

// line writes "  lane  mark text  (note)".
func (t *trace) line(lane string, ok bool, text, note string) {
	mark := t.paint(green, "✓")
	if !ok {
		mark = t.paint(red, "✗")
	}
	if note != "" {
		note = "  " + t.paint(dim, t.names.Replace(note))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "  %s %s %s%s\n", t.paint(teal, fmt.Sprintf("%-10s", lane)), mark, t.names.Replace(text), note)
}

func (t *trace) say(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.out, text)
}

func (t *trace) facts(rows [][2]string) {
	for _, r := range rows {
		t.say(fmt.Sprintf("  %s %s", t.paint(teal, fmt.Sprintf("%-10s", r[0])), r[1]))
	}
}

func (t *trace) chapter(number, title string) {
	t.say("\n" + t.paint(bold, number+"  "+title))
}

func (t *trace) answer(tool, text string) {
	t.say("")
	for l := range strings.SplitSeq(text, "\n") {
		t.say("     " + t.paint(bold, tool) + "  " + l)
	}
}

func (t *trace) invite(address, user, password string) {
	t.say("\n" + t.paint(bold, "     Open this in your browser, sign in and read what you are asked:") +
		"\n\n       " + address +
		"\n\n       user      " + user +
		"\n       password  " + password + "\n")
}

// step tells what the client did and checked.
func (t *trace) step(s client.Step) {
	text, note := s.Text, s.Rule
	if s.Kind == client.StepAsk {
		if s.Status == http.StatusUnauthorized || s.Status == http.StatusForbidden {
			text = "is told how to go on, by the WWW-Authenticate header"
		}
		note = strings.TrimSpace(place(s.To) + " " + shown(s))
		if s.Status != 0 {
			note = fmt.Sprintf("%d  %s", s.Status, note)
		}
	}
	if s.Err != nil {
		text += ": " + s.Err.Error()
	}
	t.line("agent", s.OK(), text, note)
}

// shown lists the parameters of a request that a reader learns from.
func shown(s client.Step) string {
	var out []string
	for _, p := range s.Sent {
		switch p.Name {
		case "scope", "resource", "grant_type", "code_challenge_method":
			out = append(out, p.Name+"="+p.Value)
		}
	}
	return strings.Join(out, " ")
}

func place(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	return u.Host + u.Path
}

// event tells what the authorization server wrote into its audit log.
func (t *trace) event(e audit.Event) {
	t.mu.Lock()
	t.seen = append(t.seen, e)
	t.mu.Unlock()
	switch e.Type {
	case "fetch":
		text := "read " + e.Data["url"]
		if e.Data["error"] != "" {
			t.line("server", false, text+": "+e.Data["error"], e.Rule)
			return
		}
		t.line("server", true, text, strings.TrimSpace(e.Data["event"]+" "+e.Data["status"]+" "+e.Data["freshness"]))
	case "refusal":
		t.line("server", false, "refused: "+e.Code, e.Rule+" reference "+e.Ref)
	case "login":
		t.line("server", true, "john signed in", "")
	case "consent":
		t.line("server", true, "john agreed: "+host(e.Client)+" may use "+place(e.Resource), e.Data["scope"])
	case "consent_denied":
		t.line("server", true, "john said no to "+host(e.Client), "")
	case "code":
		t.line("server", true, "sent a code to the agent, good once, for 60 seconds", "")
	case "token":
		t.line("server", true, "checked the agent's key and verifier; issued a token for this one resource", e.Data["scope"])
	case "refresh", "reuse", "revocation", "logout", "login_failed":
		t.line("server", e.Type != "reuse" && e.Type != "login_failed", string(e.Type), "")
	}
}

// events returns the audit events of a type so far.
func (t *trace) events(kind audit.Type) []audit.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []audit.Event
	for _, e := range t.seen {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

// decision tells what the guard of the MCP server decided.
func (t *trace) decision(d resource.Decision) {
	what := d.Method
	switch {
	case d.Tool != "":
		what = "tools/call " + d.Tool
	case what == "":
		what = "a request without a message"
	}
	switch {
	case d.Allowed:
		t.line("github-app", true, "lets "+what+" through for "+d.Token.ClientHost(), "token has "+d.Token.Scopes.String())
	case d.Code == "":
		t.line("github-app", true, fmt.Sprintf("answers %d: sign in first, here is where", d.Status), "asks for "+d.Needed.String())
	default:
		t.line("github-app", true, fmt.Sprintf("answers %d %s to %s", d.Status, d.Code, what), "needs "+d.Needed.String())
	}
}

func host(clientID string) string {
	if u, err := url.Parse(clientID); err == nil && u.Host != "" {
		return u.Host
	}
	return clientID
}
