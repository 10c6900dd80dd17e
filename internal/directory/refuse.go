package directory

import (
	"errors"
	"net/http"
	"strings"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// words are what a person reads on the page of a refusal.
type words struct{ title, what, next string }

// refusal is a row of the table of refusals: what a person reads, what a
// developer reads, and the status of the page.
func refusal(status int, clientID string, e *oauth.Error, say words) *web.Refusal {
	r := web.Refuse(status, e)
	r.ClientURL, r.Title, r.What, r.Next = clientID, say.title, say.what, say.next
	return r
}

func refuseUnknown(clientID string) *web.Refusal {
	return refusal(http.StatusBadRequest, clientID,
		oauth.Refuse(oauth.InvalidClient, "the client_id is neither registered here nor an https URL").Under("URL-01"),
		words{"This app is not known here",
			"The app sent a name that this server does not know. Nothing was shared.",
			"Ask the app’s maker, or your administrator, to check how it is set up."})
}

func refuseDisabled(clientID string) *web.Refusal {
	return refusal(http.StatusBadRequest, clientID,
		oauth.Refuse(oauth.InvalidClient, "this server does not accept clients by metadata document").Under("META-05"),
		words{"This app is not registered here",
			"Only apps that an administrator registered can connect to this server.",
			"Ask your administrator to register the app."})
}

func refuseReserved(clientID string) *web.Refusal {
	return refusal(http.StatusBadRequest, clientID,
		oauth.Refuse(oauth.InvalidClient, "the client_id is the identifier of this server or of a resource").Under("URL-14"),
		words{"This app cannot be right",
			"The app calls itself by the address of one of our own services.",
			"Do not go on. If you expected this app to work, give the reference to your administrator."})
}

func refuseState(clientID, state string) *web.Refusal {
	if state == StatePending {
		return refuseWaiting(clientID, "POL-01")
	}
	return refusal(http.StatusForbidden, clientID,
		oauth.Refuse(oauth.UnauthorizedClient, "an administrator has blocked this client").Under("REV-06"),
		words{"This app is blocked",
			"An administrator has blocked this app. Nothing was shared.",
			"If you need it, ask your administrator and give the reference below."})
}

func refuseWaiting(clientID, rule string) *web.Refusal {
	return refusal(http.StatusForbidden, clientID,
		oauth.Refuse(oauth.AccessDenied, "the client has to be approved by an administrator first").Under(rule),
		words{"This app has not been approved yet",
			"Apps need an administrator’s approval before anyone can connect them. Nothing was shared.",
			"Ask your administrator to approve it, with the reference below; then start again from the app."})
}

func refusePolicy(clientID string, d policy.Decision) *web.Refusal {
	if d.Action == policy.Ask {
		return refuseWaiting(clientID, "POL-01")
	}
	what := "This server does not accept this app. Nothing was shared."
	if d.Reason != "" {
		what = d.Reason
	}
	return refusal(http.StatusForbidden, clientID,
		oauth.Refuse(oauth.UnauthorizedClient, "a policy of this server refuses the client").Under("POL-01"),
		words{"This app is not allowed here", what,
			"If you need it, ask your administrator and give the reference below."})
}

// refuseResolve turns a fact of the resolver into a refusal. Whether an address
// was forbidden or a network failed is told apart in the log only (FETCH-23).
func refuseResolve(clientID string, err error) error {
	var e *cimd.Error
	if !errors.As(err, &e) {
		return err
	}
	kind, detail := e.Kind, e
	if kind == cimd.KindBackoff { // it stands for the failure that came before
		var earlier *cimd.Error
		if errors.As(e.Err, &earlier) {
			kind, detail = earlier.Kind, earlier
		}
	}
	deny := func(code oauth.Code) *oauth.Error {
		return oauth.Refuse(code, "%s", detail.Hint).Under(detail.Rule).Because(err)
	}
	host := hostOf(clientID)
	var r *web.Refusal
	switch kind {
	case cimd.KindURL:
		if detail.Rule == "URL-14" {
			return refuseReserved(clientID)
		}
		r = refusal(http.StatusBadRequest, clientID, deny(oauth.InvalidClient),
			words{"This app’s address is not usable", "The app sent an address for itself that does not follow the rules. Nothing was fetched or shared.",
				"This is for the app’s maker to mend."})
	case cimd.KindDocument, cimd.KindMismatch:
		r = refusal(http.StatusBadRequest, clientID, deny(oauth.InvalidClient),
			words{"This app describes itself wrongly", "We read what the app says about itself at " + host + ", and it does not follow the rules. Nothing was shared.",
				"This is for the app’s maker to mend. You can try again once it is."})
	case cimd.KindTooLarge:
		r = refusal(http.StatusBadGateway, clientID, deny(oauth.InvalidClient),
			words{"This app describes itself at too great length", "What the app publishes about itself at " + host + " is larger than we read. Nothing was shared.",
				"This is for the app’s maker to mend."})
	case cimd.KindRefused:
		r = refusal(http.StatusForbidden, clientID, deny(oauth.UnauthorizedClient),
			words{"This app is not allowed here", "This server does not accept this app. Nothing was shared.",
				"If you need it, ask your administrator and give the reference below."})
	case cimd.KindBusy:
		r = refusal(http.StatusServiceUnavailable, clientID, deny(oauth.TemporarilyUnavailable),
			words{"Too many apps at once", "We could not check this app just now. Nothing was shared.",
				"Wait a moment and start again from the app."})
		r.RetryAfter = e.RetryAfter
	case cimd.KindDisabled:
		return refuseDisabled(clientID)
	case cimd.KindGone:
		r = refusal(http.StatusBadGateway, clientID, deny(oauth.InvalidClient),
			words{"This app does not say who it is", "There is nothing about the app at the address that it gave for itself, at " + host + ". Nothing was shared.",
				"Ask the app’s maker. If it used to work here, tell your administrator."})
	default: // fetch, status, content type: one look from outside
		r = refusal(http.StatusBadGateway, clientID, deny(oauth.InvalidClient),
			words{"We could not check this app", "Its address (" + host + ") did not give the answer we need. Nothing was shared.",
				"Try again later, or give the reference below to your administrator."})
	}
	return r
}

// ceilings refuses a client whose document asks for what the policy excludes.
func ceilings(c *Client) error {
	host := func(u string) string { return hostOf(u) }
	for _, u := range c.RedirectURIs {
		switch {
		case c.Decision.Loopback != nil && !*c.Decision.Loopback && oauth.LoopbackRedirect(u):
			return refusal(http.StatusForbidden, c.ID,
				oauth.Refuse(oauth.UnauthorizedClient, "the policy for this client excludes redirects to the person's own computer").Under("POL-03"),
				words{"This app is not allowed here", "Apps that run on your own computer cannot connect to this server.",
					"If you need it, ask your administrator and give the reference below."})
		case c.Decision.SameHost && !oauth.LoopbackRedirect(u) && !strings.EqualFold(host(u), c.Host):
			return refusal(http.StatusForbidden, c.ID,
				oauth.Refuse(oauth.UnauthorizedClient, "the policy for this client demands redirects on its own host").Under("DOC-25"),
				words{"This app is not allowed here", "The app wants its answer at another address than its own, which this server does not accept.",
					"If you need it, ask your administrator and give the reference below."})
		}
	}
	return nil
}

func hostOf(rawURL string) string {
	_, rest, _ := strings.Cut(rawURL, "://")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if len(rest) > 100 {
		rest = "…" + rest[len(rest)-100:]
	}
	return rest
}
