package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// verify looks back: the demo is only good if the whole worked example happened,
// and happened for the right reasons.
func (t *town) verify(context.Context) error {
	t.trace.chapter("4", "What happened, looked at once more")
	g := t.github
	g.mu.Lock()
	refused, allowed, issues := g.refused, g.allowed, strings.Join(g.issues, "\n")
	g.mu.Unlock()

	stepUp := ""
	for _, d := range refused {
		if d.Tool == "create_issue" && d.Code == oauth.InsufficientScope && d.Status == 403 {
			stepUp = d.Needed.String()
		}
	}
	created := false
	for _, d := range allowed {
		created = created || (d.Tool == "create_issue" && d.Token.ClientID == clientID && d.Token.Allows(readOnly, readWrite))
	}
	registered := 0
	for _, e := range t.trace.events("client") {
		if e.Client == clientID {
			registered++
		}
	}
	host := t.internet.Host("mcpclient.example")
	checks := []struct {
		ok   bool
		text string
	}{
		{len(refused) > 0 && refused[0].Status == 401 && refused[0].Code == "", "the first call was answered by 401 and the way to sign in"},
		{host.Count("/oauth/metadata.json") == 1, "the agent's document was read exactly once; nobody registered anything"},
		{host.Count("/oauth/jwks.json") == 1, "the agent's keys were read exactly once, and proved it at the token endpoint"},
		{len(t.internet.Strays()) == 0, "no address was dialled that the guard forbids"},
		{len(t.trace.events("consent")) == 2, "john was asked twice: for reading, and then for what was new"},
		{stepUp != "", "create_issue was refused first, with what it needs: " + stepUp},
		{created, "then it was let through, with a token for this resource alone"},
		{strings.Contains(issues, "#3 Logo is missing"), "the issue is there"},
	}
	if t.opts.Headless {
		pages := t.john.read()
		checks = append(checks, struct {
			ok   bool
			text string
		}{
			len(pages) == 2 && strings.Contains(pages[1], "create_issue") && !strings.Contains(pages[0], "create_issue"),
			"the second page, and only the second, spoke of create_issue",
		})
	}
	var wrong []string
	for _, c := range checks {
		t.trace.line("demo", c.ok, c.text, "")
		if !c.ok {
			wrong = append(wrong, c.text)
		}
	}
	if len(wrong) > 0 {
		return errors.New("this did not happen: " + strings.Join(wrong, "; "))
	}
	t.trace.say(fmt.Sprintf("\nNothing was registered by hand, and %s is gone in a moment.", t.dir))
	t.trace.say("demo: ok")
	return nil
}
