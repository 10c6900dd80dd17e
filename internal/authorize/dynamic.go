package authorize

import (
	"fmt"

	"github.com/bonafide-id/bonafide/internal/directory"
)

// A client that registered itself has nothing that anybody checked: no address of
// its own, and a name that is a claim. What its page leads with is where the
// answer goes, which is all that is sure, and people are asked each time.

// selfMade reports whether the client registered itself. A rule that names it does
// not change what is known about it.
func selfMade(c *directory.Client) bool { return c.Source == directory.SourceDCR }

// headline is what leads the page about the attempt.
func (a *attempt) headline() hostView {
	switch d := newDestination(a.redirect); {
	case !selfMade(a.client):
		return headline(a.client)
	case a.redirect == "":
		return hostView{Main: "An app that registered itself", Name: true}
	case d.Computer:
		return hostView{Main: "An app on this computer", Name: true}
	default:
		return newHostView(d.Host.Sub+d.Host.Main, headlineRoom)
	}
}

// warnSelfMade says what a name is worth that nobody checked.
func (a *attempt) warnSelfMade(_ *question, name, _ string) *warning {
	if !selfMade(a.client) {
		return nil
	}
	w := &warning{
		True: "This app registered itself. Nobody has checked who makes it.",
		Do:   "Its name is only what it says. Go on only if you just started it yourself, and know the place to which the answer goes.",
	}
	own := ""
	if d := newDestination(a.redirect); a.redirect != "" && !d.Computer {
		own = d.Host.Main
	}
	home := addressIn(name, own)
	if home == "" {
		_, home = productIn(name, own)
	}
	switch {
	case own != "" && home != "":
		w.Stop, w.True = true, fmt.Sprintf("This app registered itself. Its name is that of something at %s, and its answer goes to %s.", home, own)
	case mixedAlphabets(name):
		w.Stop, w.True = true, "This app registered itself, under a name that mixes alphabets, so that it can look like another name."
	}
	return w
}
