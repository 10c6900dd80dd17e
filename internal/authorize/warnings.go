package authorize

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/publicsuffix"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/oauth"
)

// warning says what is true, and why it matters and what to do.
type warning struct {
	Stop bool // red; otherwise amber
	True string
	Do   string
}

const maxWarnings = 3

// warnings returns what a careful friend would mention, the most serious first
// and at most three. A client that an operator registered needs none about who
// it is.
func (a *attempt) warnings(ask *question, name, brand string) []warning {
	var out []warning
	for _, w := range []func(*question, string, string) *warning{
		a.warnName, a.warnSelfMade, a.warnLoopback, a.warnDevelopment, a.warnOtherHost, a.warnAlphabet, a.warnChanged, a.warnStale, a.warnFirst, a.warnTest,
	} {
		if found := w(ask, name, brand); found != nil && len(out) < maxWarnings {
			out = append(out, *found)
		}
	}
	return out
}

// warnName looks for a name that belongs elsewhere: one that contains another
// address or a well-known product, or that mixes alphabets (DO-27).
func (a *attempt) warnName(_ *question, name, _ string) *warning {
	if a.client.Host == "" {
		return nil
	}
	own := registrable(a.client.Host)
	const do = "Anyone can choose any name, but not any address. Unless you know this address, press Cancel."
	if other := addressIn(name, own); other != "" {
		return &warning{Stop: true, True: fmt.Sprintf("The name mentions %s, but the app is at %s.", other, own), Do: do}
	}
	if product, home := productIn(name, own); product != "" {
		return &warning{Stop: true, True: fmt.Sprintf("%s is at %s. This app is at %s.", product, home, own), Do: do}
	}
	if mixedAlphabets(name) {
		return &warning{Stop: true, True: "The name mixes alphabets, so that it can look like another name.", Do: do}
	}
	return nil
}

func (a *attempt) warnLoopback(*question, string, string) *warning {
	if !a.onThisComputer() || selfMade(a.client) {
		return nil
	}
	return &warning{
		True: "This app runs on a computer, so anyone can claim its name.",
		Do:   "Go on only if you just started it yourself.",
	}
}

func (a *attempt) warnDevelopment(*question, string, string) *warning {
	if !a.client.Decision.Development {
		return nil
	}
	return &warning{
		True: "This app is in development.",
		Do:   "Whoever builds it is trying it out, and it can change at any time. Go on only if you know them.",
	}
}

func (a *attempt) warnOtherHost(*question, string, string) *warning {
	d := newDestination(a.redirect)
	if d.Computer || a.client.Host == "" {
		return nil
	}
	if d.App {
		return &warning{
			True: "The answer goes to whichever app on this device opens “" + d.Host.Main + ":” links.",
			Do:   "Go on only if you just started the app yourself.",
		}
	}
	if d.Host.Main == registrable(a.client.Host) {
		return nil
	}
	return &warning{
		True: fmt.Sprintf("The answer goes to %s, not to %s.", d.Host.Main, registrable(a.client.Host)),
		Do:   "Whoever runs that address can then act for you. Go on only if you know that the two belong together.",
	}
}

func (a *attempt) warnAlphabet(*question, string, string) *warning {
	if !strings.Contains("."+strings.ToLower(a.client.Host), ".xn--") {
		return nil
	}
	return &warning{
		True: "This address is written in letters that other programs may show differently.",
		Do:   "It can be made to look like one you know. Compare it with the address you expected.",
	}
}

func (a *attempt) warnChanged(ask *question, _, _ string) *warning {
	if ask.before.Given.IsZero() || ask.before.SecurityDigest == a.client.SecurityDigest {
		return nil
	}
	return &warning{
		True: "This app has changed since you last agreed.",
		Do:   "What it may ask for, where answers go or how it proves itself is different, so please decide again.",
	}
}

func (a *attempt) warnStale(*question, string, string) *warning {
	if a.client.Doc == nil || !a.client.Doc.Stale {
		return nil
	}
	return &warning{
		True: "We cannot reach this app’s address right now.",
		Do:   "What you see is what it said the last time we could. If anything looks odd, try again later.",
	}
}

func (a *attempt) warnFirst(_ *question, _, brand string) *warning {
	if !a.client.FirstSeen || a.client.Host == "" {
		return nil
	}
	who := "here"
	if brand != "" {
		who = "at " + brand
	}
	return &warning{
		True: fmt.Sprintf("First time anyone %s connects %s.", who, newHostView(a.client.Host, textRoom).String()),
		Do:   "Nobody has tried it before you. Go on only if you came to connect this app.",
	}
}

// testNames are the top-level names that nobody can register (RFC 2606).
var testNames = []string{".test", ".example", ".invalid", ".localhost"}

func (a *attempt) warnTest(*question, string, string) *warning {
	host := strings.ToLower(a.client.Host)
	if host != "localhost" && !slices.ContainsFunc(testNames, func(s string) bool { return strings.HasSuffix(host, s) }) {
		return nil
	}
	return &warning{
		True: "This address exists for tests only.",
		Do:   "It is not on the public internet. Go on only if you are trying things out.",
	}
}

// onThisComputer reports whether the app that gets the answer is some program on
// the person's computer that does not prove itself with a key (CONS-03, CN-10).
func (a *attempt) onThisComputer() bool {
	return oauth.LoopbackRedirect(a.redirect) && slices.Contains(a.client.AuthMethods, oauth.MethodNone)
}

// vouched reports whether an operator has spoken for this very client: by
// registering it, or by a rule that names it and not only says that it is being
// built (CONS-08, CONS-12).
func vouched(c *directory.Client) bool {
	return c.Source == directory.SourceRegistered || c.Source == directory.SourceCIMD && c.Decision.Explicit && !c.Decision.Development
}

// addressIn returns an internet address in a name that is not of the client's
// own domain.
func addressIn(name, own string) string {
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(c rune) bool {
		return c != '.' && c != '-' && (c > 0x7e || !unicode.IsLetter(c) && !unicode.IsDigit(c))
	}) {
		word = strings.Trim(word, ".-")
		if suffix, known := publicsuffix.PublicSuffix(word); known && suffix != word && registrable(word) != own {
			return newHostView(word, textRoom).String()
		}
	}
	return ""
}

// products are names that people trust on sight, with the domains that may use
// them. The first domain is named in the warning.
var products = []struct {
	name, word string
	domains    []string
}{
	{"Claude", "claude", []string{"claude.ai", "claude.com", "anthropic.com"}},
	{"Anthropic", "anthropic", []string{"anthropic.com", "claude.ai", "claude.com"}},
	{"ChatGPT", "chatgpt", []string{"chatgpt.com", "openai.com"}},
	{"OpenAI", "openai", []string{"openai.com", "chatgpt.com"}},
	{"Google", "google", []string{"google.com", "google.dev", "googleapis.com"}},
	{"Gemini", "gemini", []string{"google.com", "google.dev"}},
	{"GitHub", "github", []string{"github.com", "github.dev"}},
	{"Microsoft", "microsoft", []string{"microsoft.com", "live.com", "azure.com", "office.com", "visualstudio.com", "vscode.dev"}},
	{"Visual Studio Code", "visual studio code", []string{"vscode.dev", "visualstudio.com", "microsoft.com", "github.dev"}},
	{"VS Code", "vs code", []string{"vscode.dev", "visualstudio.com", "microsoft.com", "github.dev"}},
	{"Apple", "apple", []string{"apple.com"}},
	{"PayPal", "paypal", []string{"paypal.com"}},
	{"Slack", "slack", []string{"slack.com"}},
	{"Salesforce", "salesforce", []string{"salesforce.com", "force.com"}},
	{"Cloudflare", "cloudflare", []string{"cloudflare.com"}},
}

// productIn returns a well-known product whose name is used by another domain.
func productIn(name, own string) (product, home string) {
	words := " " + strings.Join(strings.FieldsFunc(strings.ToLower(name), func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c)
	}), " ") + " "
	for _, p := range products {
		if strings.Contains(words, " "+p.word+" ") && !slices.Contains(p.domains, own) {
			return p.name, p.domains[0]
		}
	}
	return "", ""
}

// mixedAlphabets reports whether one word of a name has letters of more than one
// of the alphabets whose letters pass for each other.
func mixedAlphabets(name string) bool {
	for _, word := range strings.Fields(name) {
		found := 0
		for _, alphabet := range []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek} {
			if strings.ContainsFunc(word, func(c rune) bool { return unicode.Is(alphabet, c) }) {
				found++
			}
		}
		if found > 1 {
			return true
		}
	}
	return false
}
