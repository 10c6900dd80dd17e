package client

import (
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// StepKind tells what a [Step] is.
type StepKind string

// The kinds of steps.
const (
	StepAsk    StepKind = "ask"    // a request and its answer
	StepCheck  StepKind = "check"  // something was compared, and held or not
	StepDecide StepKind = "decide" // a choice, with its reason
	StepUser   StepKind = "user"   // the browser was opened, or came back
)

// Step is one exchange or one check of a sign-in, told in plain words.
type Step struct {
	Kind   StepKind
	Time   time.Time
	To     string        // who was asked: the URL without query; "" for checks
	Text   string        // what was asked or checked, as a sentence without full stop
	Sent   []oauth.Param // parameters of the request; secrets read "(hidden)"
	Status int           // HTTP status of the answer; 0 for none
	Rule   string        // the requirement behind a check, such as "CLI-04"
	Err    error         // nil when it went well
}

// OK reports whether the step went well.
func (s Step) OK() bool { return s.Err == nil }

func (c *Client) step(s Step) {
	if c.cfg.Trace == nil {
		return
	}
	s.Time = c.cfg.Now()
	c.cfg.Trace(s)
}

// check tells a check and returns its outcome.
func (c *Client) check(rule, text string, err error) error {
	c.step(Step{Kind: StepCheck, Text: text, Rule: rule, Err: err})
	return err
}

var secrets = []string{"code", "code_verifier", "state", "refresh_token", "client_assertion", "client_secret", "access_token", "device_code", "token"}

func redact(pairs []string) []oauth.Param {
	var out []oauth.Param
	for i := 0; i+1 < len(pairs); i += 2 {
		p := oauth.Param{Name: pairs[i], Value: pairs[i+1]}
		if slices.Contains(secrets, p.Name) {
			p.Value = "(hidden)"
		}
		if pairs[i+1] != "" {
			out = append(out, p)
		}
	}
	return out
}
