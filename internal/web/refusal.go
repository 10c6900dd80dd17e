package web

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// Refusal is a refusal with what a page says about it. Empty texts are filled in
// from the code and the status, so that [Refuse] alone makes a whole page. Texts
// are plain text; nothing that was fetched, and no inner address, may be in them.
type Refusal struct {
	Err    *oauth.Error // code, hint and rule for the app's developer; never nil
	Status int          // of the page; the status of a JSON error follows the code
	Title  string       // what happened, as a heading: "We could not check this app"
	What   string       // what happened, in a sentence or two
	Turn   string       // whose turn it is: "The people who make the app"
	Next   string       // what to do next
	// ClientURL is the client_id in question. It is shown as text, with its
	// host emphasised, and never as a link (AUTHZ-30).
	ClientURL string
	// RetryAfter becomes the header of the same name when the status is 429
	// or 503; 0 is 30 s.
	RetryAfter time.Duration
}

// Refuse returns a refusal with the status of its page. An err that is no
// refusal becomes server_error and stays out of sight.
func Refuse(status int, err error) *Refusal {
	return &Refusal{Err: oauth.AsError(err), Status: status}
}

// Error implements error. The text is for logs: it includes the private cause.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the [oauth.Error].
func (r *Refusal) Unwrap() error { return r.Err }

// waiting reports whether a device is told to ask again: nothing was refused, and
// it happens every few seconds (RFC 8628 section 3.5).
func (r *Refusal) waiting() bool {
	return r.Err.Code == oauth.AuthorizationPending || r.Err.Code == oauth.SlowDown
}

// asRefusal returns the refusal inside err, complete: a copy in which every
// empty text is filled in.
func asRefusal(err error) *Refusal {
	var out Refusal
	if r, ok := errors.AsType[*Refusal](err); ok {
		out = *r
	}
	if out.Err == nil {
		out.Err = oauth.AsError(err)
	}
	if out.Status < 400 || out.Status > 599 {
		out.Status = pageStatus(out.Err.Code)
	}
	d := describe(out.Status, out.Err.Code)
	out.Title = first(out.Title, d.title)
	out.What = first(out.What, d.what)
	out.Turn = first(out.Turn, d.turn)
	out.Next = first(out.Next, d.next)
	return &out
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func pageStatus(c oauth.Code) int {
	switch c {
	case oauth.ServerError:
		return http.StatusInternalServerError
	case oauth.TemporarilyUnavailable:
		return http.StatusServiceUnavailable
	case oauth.AccessDenied:
		return http.StatusForbidden
	default:
		return http.StatusBadRequest
	}
}

// jsonStatus returns the status of a JSON error: what RFC 6749 section 5.2 and
// RFC 6750 section 3.1 say about the code, unless the request failed as HTTP.
func jsonStatus(r *Refusal) int {
	switch r.Status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return r.Status
	}
	switch r.Err.Code {
	case oauth.InvalidClient, oauth.InvalidToken:
		return http.StatusUnauthorized
	case oauth.InsufficientScope:
		return http.StatusForbidden
	case oauth.ServerError:
		return http.StatusInternalServerError
	case oauth.TemporarilyUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

func setRetryAfter(h http.Header, status int, after time.Duration) {
	if status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
		return
	}
	if after <= 0 {
		after = 30 * time.Second
	}
	h.Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
}

// description is what a page says when the handler left it to us.
type description struct{ title, what, turn, next string }

const (
	turnOurs  = "Whoever runs this server"
	turnApp   = "The people who make the app"
	turnYours = "You"
	again     = "Go back to the app and start again."
	report    = "Start again from the app. If that does not help, give the reference below to the people who make it."
)

// describe returns the words for a refusal: by status where the status says
// more than the code, else by code.
func describe(status int, code oauth.Code) description {
	switch status {
	case http.StatusNotFound:
		return description{"There is nothing here", "The address may be mistyped, or the page has moved.", turnYours, "Check the address, or go back to the app you came from."}
	case http.StatusMethodNotAllowed:
		return description{"This page cannot be used that way", "The request was of a kind that this address does not answer.", turnApp, report}
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong:
		return description{"The request is too large", "The app sent more than we accept. Nothing was shared.", turnApp, report}
	case http.StatusTooManyRequests:
		return description{"That was too often", "There were many attempts in a short time, so we slow them down.", turnYours, "Wait a little, then try again."}
	}
	switch code {
	case oauth.ServerError:
		return description{"Something went wrong on our side", "We could not finish this step. Nothing was shared.", turnOurs,
			"Try again in a few minutes. If it happens again, give the reference below to your administrator."}
	case oauth.TemporarilyUnavailable:
		return description{"We are busy right now", "There is more to do at this moment than we can do well. Nothing was shared.", turnYours, "Wait a minute, then try again."}
	case oauth.InvalidClient, oauth.UnauthorizedClient:
		return description{"We could not check this app", "It did not prove that it is what it says. Nothing was shared.", turnApp, report}
	case oauth.AccessDenied:
		return description{"This app is not allowed here", "Whoever runs this server has not let it in. Nothing was shared.", turnOurs,
			"If you need this app, give the reference below to your administrator."}
	case oauth.LoginRequired, oauth.InteractionRequired, oauth.ConsentRequired:
		return description{"You need to sign in", "This step needs you to be signed in here.", turnYours, again}
	default:
		return description{"The app asked in a way we cannot accept", "Something in its request is missing or wrong. Nothing was shared.", turnApp, report}
	}
}
