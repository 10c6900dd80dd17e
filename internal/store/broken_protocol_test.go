package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// protocolVerbs are the verbs of the whole protocol, in an order in which each of
// them succeeds. They leave what the other verbs need as it is.
func protocolVerbs() []verb {
	const opened = "https://opened.example/client.json"
	ev := audit.Event{Type: audit.TypeLogin}
	later := noon.Add(time.Minute)
	answer := func(name string) Answer {
		return Answer{Nonce: HashOf("page" + name), Session: HashOf("session"), NonceExpires: later, Remember: true, Events: []audit.Event{ev},
			Grant: Grant{ID: "grant" + name, UserID: "u1", ClientID: benchClient}, Code: Code{Hash: HashOf("c" + name), Expires: later}}
	}
	push := func(name string) func(context.Context, *Store) error {
		return func(ctx context.Context, s *Store) error {
			return s.PushRequest(ctx, Pushed{Hash: HashOf(name), ClientID: benchClient, Created: noon, Expires: later}, 10, ev)
		}
	}
	start := func(name string) func(context.Context, *Store) error {
		return func(ctx context.Context, s *Store) error {
			return s.StartDevice(ctx, Device{Hash: HashOf(name), UserCode: HashOf("code of " + name), ClientID: benchClient, Created: noon, Expires: later, Interval: time.Second}, 10, ev)
		}
	}
	poll := func(ctx context.Context, s *Store) error {
		_, err := s.PollDevice(ctx, HashOf("device1"), noon.Add(time.Second))
		return err
	}
	dynamic := Client{ID: "dynamic", RegistrationHash: "r1", Expires: later}
	return []verb{
		{"LinkIdentity of a new account", func(ctx context.Context, s *Store) error {
			return s.LinkIdentity(ctx, Identity{Issuer: "i", Subject: "s", UserID: "u9"}, &User{ID: "u9", Name: "Nina", Email: "n@example.test"}, ev)
		}},
		{"LinkIdentity again", func(ctx context.Context, s *Store) error {
			return s.LinkIdentity(ctx, Identity{Issuer: "i", Subject: "s", UserID: "u9"}, nil, ev)
		}},
		{"UserByIdentity", func(ctx context.Context, s *Store) error { _, err := s.UserByIdentity(ctx, "i", "", "s"); return err }},
		{"UserByEmail", func(ctx context.Context, s *Store) error {
			_, err := s.UserByEmail(ctx, "N@example.test")
			return err
		}},
		{"StartSession of a new account", func(ctx context.Context, s *Store) error {
			return s.StartSession(ctx, Session{Hash: HashOf("s9"), UserID: "u9", Expires: later})
		}},
		{"EndSessionsOf", func(ctx context.Context, s *Store) error { _, err := s.EndSessionsOf(ctx, "u9", noon, ev); return err }},
		{"SignOutIdentity", func(ctx context.Context, s *Store) error {
			f := Farewell{Issuer: "i", Subject: "s", Spend: SpentID{Issuer: "i logout", ID: HashOf("bye"), Expires: later}, Reason: "signed out"}
			_, err := s.SignOutIdentity(ctx, f, noon, ev)
			return err
		}},
		{"PushRequest", push("pushed1")},
		{"PushRequest of another", push("pushed2")},
		{"FindPushed", func(ctx context.Context, s *Store) error {
			_, err := s.FindPushed(ctx, HashOf("pushed1"), noon)
			return err
		}},
		{"AnswerConsent to a pushed request", func(ctx context.Context, s *Store) error {
			a, h := answer("p"), HashOf("pushed1")
			a.Pushed = &h
			return s.AnswerConsent(ctx, a, noon)
		}},
		{"DenyPushed", func(ctx context.Context, s *Store) error {
			return s.DenyPushed(ctx, HashOf("pushed2"), Denial{Nonce: HashOf("no1"), NonceExpires: later, Events: []audit.Event{ev}}, noon)
		}},
		{"StartDevice", start("device1")},
		{"StartDevice of another", start("device2")},
		{"GuessUserCode", func(ctx context.Context, s *Store) error {
			_, _, err := s.GuessUserCode(ctx, Guess{UserCode: HashOf("code of device1"), Window: time.Minute, Against: []Allowance{{Key: HashOf("u1"), Most: 9}}}, noon)
			return err
		}},
		{"GuessUserCode, a wrong one", func(ctx context.Context, s *Store) error {
			_, _, err := s.GuessUserCode(ctx, Guess{UserCode: HashOf("nobody"), Window: time.Minute, Against: []Allowance{{Key: HashOf("u1"), Most: 9}}}, noon)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			return err
		}},
		{"FindUserCode", func(ctx context.Context, s *Store) error {
			_, err := s.FindUserCode(ctx, HashOf("code of device1"), noon)
			return err
		}},
		{"FindDevice", func(ctx context.Context, s *Store) error {
			_, err := s.FindDevice(ctx, HashOf("device1"), noon)
			return err
		}},
		{"PollDevice", func(ctx context.Context, s *Store) error {
			_, err := s.PollDevice(ctx, HashOf("device1"), noon)
			return err
		}},
		{"ApproveDevice", func(ctx context.Context, s *Store) error {
			return s.ApproveDevice(ctx, DeviceAnswer{UserCode: HashOf("code of device1"), Answer: answer("d")}, noon)
		}},
		{"PollDevice after a yes", poll},
		{"RedeemDevice", func(ctx context.Context, s *Store) error {
			_, err := s.RedeemDevice(ctx, Redemption{Hash: HashOf("device1"), Refresh: &NewRefresh{Hash: HashOf("d/1"), Absolute: later}, Events: []audit.Event{ev}}, noon)
			return err
		}},
		{"DenyDevice", func(ctx context.Context, s *Store) error {
			return s.DenyDevice(ctx, HashOf("code of device2"), Denial{Nonce: HashOf("no2"), NonceExpires: later, Events: []audit.Event{ev}}, noon)
		}},
		{"OpenGrant for a fetched client", func(ctx context.Context, s *Store) error {
			_, err := s.OpenGrant(ctx, Opening{Client: &Client{ID: opened, Source: SourceCIMD}, Document: &Document{ClientID: opened, Digest: "d", Body: []byte("{}")},
				Grant: Grant{ID: "opened1", Kind: KindJWT, UserID: "u1", ClientID: opened}, Spend: []SpentID{{Issuer: "i", ID: HashOf("jag"), Expires: later}}, Events: []audit.Event{ev}}, noon)
			return err
		}},
		{"OpenGrant for the client itself", func(ctx context.Context, s *Store) error {
			_, err := s.OpenGrant(ctx, Opening{Grant: Grant{ID: "opened2", Kind: KindClient, ClientID: benchClient}, Refresh: &NewRefresh{Hash: HashOf("o/1"), Absolute: later}}, noon)
			return err
		}},
		{"SessionGrants", func(ctx context.Context, s *Store) error { _, err := s.SessionGrants(ctx, "sid"); return err }},
		{"RegisterDynamic", func(ctx context.Context, s *Store) error { return s.RegisterDynamic(ctx, dynamic, 10, noon, ev) }},
		{"UpdateDynamic", func(ctx context.Context, s *Store) error {
			c := dynamic
			c.RegistrationHash = "r2"
			return s.UpdateDynamic(ctx, c, "r1", noon, ev)
		}},
		{"RemoveDynamic", func(ctx context.Context, s *Store) error { return s.RemoveDynamic(ctx, "dynamic", "r2", noon, ev) }},
	}
}
