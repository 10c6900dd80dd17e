// Package audit says what happened: typed events that a person, an auditor or a
// machine can read, cleaned of everything that could forge a record or leak a
// secret. An event is a row written with what it records, not a log line. The
// package imports the standard library only; the store is its Sink.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"time"
)

// Type says what kind of thing happened.
type Type string

// The types of events.
const (
	TypeFetch         Type = "fetch"          // a client's document, keys or logo was fetched or refused
	TypeChange        Type = "change"         // a client's document changed
	TypeDecision      Type = "decision"       // a policy decided about a client
	TypeRefusal       Type = "refusal"        // a request was refused
	TypeConsent       Type = "consent"        // a person agreed
	TypeConsentDenied Type = "consent_denied" // a person said no
	TypeCode          Type = "code"           // an authorization code was issued
	TypeDevice        Type = "device"         // a device asked for a code to show
	TypeToken         Type = "token"          // a code was redeemed
	TypeRefresh       Type = "refresh"        // a refresh token was rotated
	TypeReuse         Type = "reuse"          // a spent code or refresh token came back: its grant was ended
	TypeRevocation    Type = "revocation"     // a token, grant or client was revoked
	TypeLogin         Type = "login"          // a person signed in
	TypeLoginFailed   Type = "login_failed"   // somebody failed to sign in
	TypeLogout        Type = "logout"         // a person signed out
	TypeLogoutNotice  Type = "logout_notice"  // a client was told that a session has ended, or could not be told
	TypeUser          Type = "user"           // an account was added, changed, disabled or enabled
	TypeClient        Type = "client"         // a client was registered, allowed, blocked or retired
	TypeKey           Type = "key"            // a signing key was added or retired
	TypeConfig        Type = "config"         // the configuration was read or changed
	TypeRetention     Type = "retention"      // events were removed for their age
	TypeSuppressed    Type = "suppressed"     // events of the type in Code were counted instead of written
)

// Types are all types of events, in the order in which the documentation tells of
// them.
var Types = []Type{
	TypeFetch, TypeChange, TypeDecision, TypeRefusal, TypeConsent, TypeConsentDenied, TypeCode, TypeDevice, TypeToken, TypeRefresh,
	TypeReuse, TypeRevocation, TypeLogin, TypeLoginFailed, TypeLogout, TypeLogoutNotice, TypeUser, TypeClient, TypeKey, TypeConfig,
	TypeRetention, TypeSuppressed,
}

// Event is one thing that happened. Seq is given by the store and grows with
// each event. Ref is the reference number shown to the person or program that
// was told about it; Rule is the requirement row that was enforced and Code the
// OAuth error code or another stable word. No member ever holds a token, an
// assertion, an authorization code or a password: Clean sees to it.
type Event struct {
	Seq      int64             `json:"seq,omitempty"`
	Time     time.Time         `json:"time"`
	Type     Type              `json:"type"`
	Ref      string            `json:"ref,omitempty"`
	Client   string            `json:"client,omitempty"`
	User     string            `json:"user,omitempty"`
	Grant    string            `json:"grant,omitempty"`
	Resource string            `json:"resource,omitempty"`
	IP       string            `json:"ip,omitempty"`
	Rule     string            `json:"rule,omitempty"`
	Code     string            `json:"code,omitempty"`
	Data     map[string]string `json:"data,omitempty"`
}

// Sink keeps events. AppendEvents returns when all of them are durable, or an
// error and none of them is.
type Sink interface {
	AppendEvents(ctx context.Context, events ...Event) error
}

// MarshalLine returns the cleaned event as one line of JSON with a newline at
// its end and no other control character (AD-07).
func (e Event) MarshalLine() []byte { return e.Clean().Line() }

// Line returns the event as it is as one line of JSON: for an event that was
// cleaned before, and for the proof that a kept one was not altered.
func (e Event) Line() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		// Only a year outside 0 to 9999 can fail here; the event must not be lost for it.
		e.Time = time.Time{}
		b.Reset()
		_ = enc.Encode(e)
	}
	return b.Bytes()
}
