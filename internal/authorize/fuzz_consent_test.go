package authorize

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/bonafide-id/bonafide/internal/policy"
)

// everywhere puts one text into every member of a page that strangers have a say in.
func everywhere(s string) consentView {
	p := permission{Title: s, Description: s, Tools: []string{s}, Particulars: []policy.DetailFact{{Title: s, Values: []string{s}}, {Title: s, Values: []string{s, s}}}}
	return consentView{
		Headline: hostView{Sub: s, Main: s}, Name: s, Logo: "/logo?ref=" + s, Proof: proof{Text: s}, Resource: s, Account: s,
		Have: []permission{p}, New: []permission{p, p}, Again: s, Changed: true, Warnings: []warning{{True: s, Do: s}},
		Destination: destination{Host: hostView{Sub: s, Main: s}, Port: s},
		Action:      "/consent", Transaction: s, Connections: "/connections",
		Facts: []fact{{Name: s, Text: s}, {Name: s, Text: s, Code: true}, {Name: s, Text: s, Time: s}}, Links: []link{{Text: s, URL: s, Host: s}},
	}
}

// anatomy is the elements of a page with the names of their attributes, how often
// a text stands in it as text, and where its links lead.
func anatomy(t testing.TB, v consentView, text string) (bones []string, told int, links []string) {
	t.Helper()
	var b bytes.Buffer
	if err := consentPage.Execute(&b, v); err != nil {
		t.Fatal(err)
	}
	z := html.NewTokenizer(&b)
	for {
		switch z.Next() {
		case html.ErrorToken:
			return bones, told, links
		case html.TextToken:
			if strings.Contains(z.Token().Data, text) {
				told++
			}
		case html.CommentToken:
			bones = append(bones, "comment")
		default:
			tok := z.Token()
			bone := tok.Type.String() + " " + tok.Data
			for _, a := range tok.Attr {
				bone += " " + a.Key
				if a.Key == "href" || a.Key == "src" || a.Key == "action" {
					links = append(links, a.Val)
				}
			}
			bones = append(bones, bone)
		}
	}
}

// FuzzConsentPage puts a stranger's text everywhere on the consent page. Whatever
// it is, the page has the elements and attributes that it has with a plain word,
// it says the text as often, and no link of it leads to a script.
func FuzzConsentPage(f *testing.F) {
	for _, s := range []string{"Good", `"><script>alert(1)</script>`, "</textarea><!--", `' onmouseover='x`, "javascript:alert(1)", "{{.Action}}", "&lt;b&gt;", "a\u202eb", "data:text/html,x", "</title></style></script>"} {
		f.Add(s)
	}
	plain, often, _ := anatomy(f, everywhere("Good"), "Good")
	if often < 20 {
		f.Fatalf("the text stands on the page only %d times", often)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r") || strings.TrimSpace(s) == "" {
			return // these never reach a page, and HTML reads them as something else
		}
		bones, told, links := anatomy(t, everywhere(s), s)
		if !slices.Equal(bones, plain) {
			t.Fatalf("the page has other elements:\n%q\nthan\n%q", bones, plain)
		}
		if told < often {
			t.Fatalf("%q is said %d times instead of %d", s, told, often)
		}
		for _, l := range links {
			scheme, _, ok := strings.Cut(strings.ToLower(strings.TrimSpace(l)), ":")
			if ok && !strings.ContainsAny(scheme, "/?#") && scheme != "https" && scheme != "http" && scheme != "mailto" {
				t.Fatalf("a link leads to %q", l)
			}
		}
	})
}
