package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Pushed are requests that wait for a person.
type Pushed interface {
	PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error
	FindPushed(context.Context, store.Hash, time.Time) (store.Pushed, error)
	DenyPushed(ctx context.Context, pushed store.Hash, d store.Denial, now time.Time) error
}

// Devices are devices that wait for a person.
type Devices interface {
	StartDevice(ctx context.Context, d store.Device, most int, events ...audit.Event) error
	FindUserCode(context.Context, store.Hash, time.Time) (store.Device, error)
	FindDevice(context.Context, store.Hash, time.Time) (store.Device, error)
	PollDevice(context.Context, store.Hash, time.Time) (store.Device, error)
	ApproveDevice(context.Context, store.DeviceAnswer, time.Time) error
	DenyDevice(ctx context.Context, userCode store.Hash, d store.Denial, now time.Time) error
	RedeemDevice(context.Context, store.Redemption, time.Time) (store.Grant, error)
}

// Openings are grants without a page, and the grants of a session.
type Openings interface {
	OpenGrant(context.Context, store.Opening, time.Time) (store.Grant, error)
	SessionGrants(ctx context.Context, sid string) ([]store.Grant, error)
	EndSessionsOf(ctx context.Context, userID string, now time.Time, events ...audit.Event) ([]string, error)
}

// Identities are who people are elsewhere.
type Identities interface {
	UserByIdentity(ctx context.Context, issuer, tenant, subject string) (store.User, error)
	UserByEmail(ctx context.Context, email string) (store.User, error)
	LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error
}

// Dynamic are clients that register themselves.
type Dynamic interface {
	RegisterDynamic(ctx context.Context, c store.Client, most int, now time.Time, events ...audit.Event) error
	UpdateDynamic(ctx context.Context, c store.Client, oldRegistration string, now time.Time, events ...audit.Event) error
	RemoveDynamic(ctx context.Context, id, registration string, now time.Time, events ...audit.Event) error
}

// plenty is a bound that nothing here reaches.
const plenty = 100_000

// push leaves a request of the allowed client.
func (h *House) push(ctx context.Context) (store.Pushed, error) {
	h.n++
	p := store.Pushed{Hash: store.HashOf(fmt.Sprint("pushed ", h.n)), ClientID: ClientID, Request: []byte("sealed"), Created: Noon, Expires: Noon.Add(time.Minute)}
	return p, h.PushRequest(ctx, p, plenty)
}

// device is a good request of the allowed client.
func (h *House) device() store.Device {
	h.n++
	return store.Device{Hash: store.HashOf(fmt.Sprint("device ", h.n)), UserCode: store.HashOf(fmt.Sprint("user code ", h.n)),
		ClientID: ClientID, Resource: Resource, Scopes: scopes("read", "write"), Details: `[{"type":"t"}]`, AuthMethods: []string{"none"},
		Method: "none", JKT: "jkt", SecurityDigest: "digest", Version: 3, IP: "192.0.2.1",
		Created: Noon, Expires: Noon.Add(10 * time.Minute), NextPoll: Noon, Interval: 5 * time.Second}
}

// start leaves the request of a device.
func (h *House) start(ctx context.Context) (store.Device, error) {
	d := h.device()
	return d, h.StartDevice(ctx, d, plenty)
}

// yes is a good answer to a device, with a page and a grant of its own.
func (h *House) yes(d store.Device) store.DeviceAnswer {
	a := h.answer()
	a.Code = store.Code{}
	return store.DeviceAnswer{UserCode: d.UserCode, Answer: a}
}

// no is a good denial with a page of its own.
func (h *House) no() store.Denial {
	h.n++
	return store.Denial{Nonce: store.HashOf(fmt.Sprint("no ", h.n)), NonceExpires: Noon.Add(10 * time.Minute)}
}

// approved leaves a device to which a person said yes.
func (h *House) approved(ctx context.Context) (store.Device, store.DeviceAnswer, error) {
	d, err := h.start(ctx)
	a := h.yes(d)
	return d, a, errors.Join(err, h.ApproveDevice(ctx, a, Noon))
}

// ofDevice redeems the code of a device for a refresh token named after its answer.
func ofDevice(d store.Device, a store.DeviceAnswer) store.Redemption {
	r := redemption(a.Answer)
	r.Hash, r.JKT, r.InstanceJKT, r.CertThumbprint = d.Hash, "jkt", "instance", "x5t"
	return r
}

// opening is a grant that the allowed client gets with an assertion for a person.
func (h *House) opening() store.Opening {
	h.n++
	return store.Opening{
		Grant: store.Grant{ID: store.NewID(Noon) + fmt.Sprint(h.n), UserID: User, ClientID: ClientID, Resource: Resource, Scopes: scopes("read"),
			SecurityDigest: "digest", AuthMethods: []string{"private_key_jwt"}, AuthMethod: "private_key_jwt", KeyThumbprint: "thumbprint",
			Kind: store.KindJWT, JKT: "jkt", InstanceJKT: "instance", CertThumbprint: "x5t", Details: "[]", Actor: `{"sub":"agent"}`, AuthTime: Noon},
		Spend: []store.SpentID{{Issuer: "https://idp.example", ID: store.HashOf(fmt.Sprint("jti ", h.n)), Expires: Noon.Add(5 * time.Minute)}},
	}
}

// dynamic is a good client that registers itself.
func (h *House) dynamic() store.Client {
	h.n++
	return store.Client{ID: fmt.Sprint("dyn-", h.n), Name: "Dynamic", SecretHash: "secret", RedirectURIs: []string{"https://dyn.example/cb"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{"none"}, Scope: "read", HasScope: true, Expires: Noon.Add(24 * time.Hour),
		RegistrationHash: "registration 1", Metadata: []byte(`{"client_name":"Dynamic"}`),
		PostLogoutRedirectURIs: []string{"https://dyn.example/bye"}, BackchannelLogoutURI: "https://dyn.example/logout"}
}

// replicas runs do with handles on the same data that take turns.
func (h *House) replicas(do func(s func(i int) Store) error) error {
	other, err := h.Reopen()
	if err != nil {
		return err
	}
	return errors.Join(do(func(i int) Store { return []Store{h.Store, other}[i%2] }), other.Close())
}

// protocolOnceChecks are the clauses about what happens at most once.
var protocolOnceChecks = []Check{
	{"PAR-05 a pushed request is kept once under its name, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				h.n++
				name := store.HashOf(fmt.Sprint("pushed ", h.n))
				var winner atomic.Int64
				err := once(n, store.ErrConflict, func(i int) error {
					p := store.Pushed{Hash: name, ClientID: fmt.Sprint("client ", i), Created: Noon, Expires: Noon.Add(time.Minute)}
					err := s(i).PushRequest(ctx, p, plenty)
					if err == nil {
						winner.Store(int64(i))
					}
					return err
				})
				p, ferr := h.FindPushed(ctx, name, Noon)
				return errors.Join(err, ferr, same("whose it is", p.ClientID, fmt.Sprint("client ", winner.Load())))
			})
		})
	}},
	{"PAR-05, attack CN-07: a pushed request is answered once, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				p, err := h.push(ctx)
				if err != nil {
					return err
				}
				answers, denials := make([]store.Answer, n), make([]store.Denial, n)
				for i := range n { // each from a page of its own
					answers[i], denials[i] = h.answer(), h.no()
					answers[i].Pushed = &p.Hash
				}
				if err := once(n, store.ErrSpent, func(i int) error {
					if i%4 == 3 {
						return s(i).DenyPushed(ctx, p.Hash, denials[i], Noon)
					}
					return s(i).AnswerConsent(ctx, answers[i], Noon)
				}); err != nil {
					return fmt.Errorf("answer: %w", err)
				}
				codes := 0
				for _, a := range answers {
					if _, err := h.FindCode(ctx, a.Code.Hash, Noon); err == nil {
						codes++
					}
				}
				if codes > 1 {
					return fmt.Errorf("%d codes for one request", codes)
				}
				_, err = h.FindPushed(ctx, p.Hash, Noon)
				return is("found afterwards", err, store.ErrSpent)
			})
		})
	}},
	{"attack DV-06, attack CN-07: a device is answered once, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				d, err := h.start(ctx)
				if err != nil {
					return err
				}
				answers, denials := make([]store.DeviceAnswer, n), make([]store.Denial, n)
				for i := range n {
					answers[i], denials[i] = h.yes(d), h.no()
				}
				err = once(n, store.ErrSpent, func(i int) error {
					if i%4 == 3 {
						return s(i).DenyDevice(ctx, d.UserCode, denials[i], Noon)
					}
					return s(i).ApproveDevice(ctx, answers[i], Noon)
				})
				if err != nil {
					return err
				}
				found, err := h.FindDevice(ctx, d.Hash, Noon)
				grants := 0
				for _, a := range answers {
					if g, err := h.GrantActive(ctx, a.Answer.Grant.ID); err == nil && g.ID == found.GrantID {
						grants++
					} else if err == nil {
						return errors.New("a grant of nobody's answer")
					}
				}
				want := map[string]int{store.DeviceApproved: 1, store.DeviceDenied: 0}[found.State]
				return errors.Join(err, same("grants of a device that is "+found.State, grants, want))
			})
		})
	}},
	{"DEV-06, attack DV-07: the code of a device is redeemed once, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				d, a, err := h.approved(ctx)
				if err != nil {
					return err
				}
				return once(n, store.ErrSpent, func(i int) error {
					r := ofDevice(d, a)
					r.Refresh.Hash = refreshOf(a.Answer, 1000+i)
					_, err := s(i).RedeemDevice(ctx, r, Noon)
					return err
				})
			})
		})
	}},
	{"DEV-04, attack DV-02: of polls at one moment one is in time and all are booked", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				d, err := h.start(ctx)
				if err != nil {
					return err
				}
				err = once(n, store.ErrTooFast, func(i int) error {
					_, err := s(i).PollDevice(ctx, d.Hash, Noon)
					return err
				})
				found, ferr := h.FindDevice(ctx, d.Hash, Noon)
				return errors.Join(err, ferr, same("interval", found.Interval, d.Interval+time.Duration(n-1)*store.SlowDown))
			})
		})
	}},
	{"XCH-04, attack CA-01: an assertion opens one grant, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				openings := make([]store.Opening, n)
				for i := range openings {
					openings[i] = h.opening()
					openings[i].Spend = append(openings[i].Spend, openings[0].Spend[0]) // its own, and the one
				}
				openings[0].Spend = openings[0].Spend[:1]
				err := once(n, store.ErrSpent, func(i int) error {
					_, err := s(i).OpenGrant(ctx, openings[i], Noon)
					return err
				})
				if err != nil {
					return err
				}
				grants := 0
				for _, o := range openings {
					if _, err := h.GrantActive(ctx, o.Grant.ID); err == nil {
						grants++
						continue
					}
					if own := o.Spend[0]; own.ID != openings[0].Spend[0].ID { // nothing of a loser stands
						if err := h.SpendID(ctx, own.Issuer, own.ID, own.Expires, Noon); err != nil {
							return fmt.Errorf("a loser's own identifier: %w", err)
						}
					}
				}
				return same("grants of one assertion", grants, 1)
			})
		})
	}},
	{"DCR-05 an identifier is taken once by clients that register themselves, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				c := h.dynamic()
				var winner atomic.Int64
				err := once(n, store.ErrConflict, func(i int) error {
					mine := c
					mine.Name = fmt.Sprint("name ", i)
					err := s(i).RegisterDynamic(ctx, mine, plenty, Noon)
					if err == nil {
						winner.Store(int64(i))
					}
					return err
				})
				row, rerr := h.Client(ctx, c.ID)
				return errors.Join(err, rerr, same("whose it is", row.Name, fmt.Sprint("name ", winner.Load())))
			})
		})
	}},
	{"DCR-04 a registration token is used once, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				c := h.dynamic()
				if err := h.RegisterDynamic(ctx, c, plenty, Noon); err != nil {
					return err
				}
				var winner atomic.Int64
				err := once(n, store.ErrConflict, func(i int) error {
					u := c
					u.Name, u.RegistrationHash = fmt.Sprint("name ", i), fmt.Sprint("registration ", i, " of many")
					err := s(i).UpdateDynamic(ctx, u, c.RegistrationHash, Noon)
					if err == nil {
						winner.Store(int64(i))
					}
					return err
				})
				row, rerr := h.Client(ctx, c.ID)
				return errors.Join(err, rerr, same("name", row.Name, fmt.Sprint("name ", winner.Load())),
					same("token", row.RegistrationHash, fmt.Sprint("registration ", winner.Load(), " of many")))
			})
		})
	}},
	{"XCH-10, OIDC-05: an identity is linked to one account, across replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inRounds(func(n int) error {
				h.n++
				subject := fmt.Sprint("subject ", h.n)
				err := once(n, store.ErrConflict, func(i int) error { // the first sign-in, in many windows
					name := fmt.Sprint(subject, " ", i)
					return s(i).LinkIdentity(ctx, store.Identity{Issuer: "https://idp.example", Subject: subject, UserID: name, Created: Noon, LastSeen: Noon},
						&store.User{ID: name, Name: name, Created: Noon})
				})
				u, uerr := h.UserByIdentity(ctx, "https://idp.example", "", subject)
				if err := errors.Join(err, uerr); err != nil {
					return err
				}
				accounts := 0
				for i := range n {
					found, err := h.UserByName(ctx, fmt.Sprint(subject, " ", i))
					if err == nil && found.ID == u.ID {
						accounts++
					} else if !errors.Is(err, store.ErrNotFound) {
						return errors.Join(err, fmt.Errorf("the account %q is linked to nobody", found.ID))
					}
				}
				return same("accounts", accounts, 1)
			})
		})
	}},
	{"DCR-01, PAR-11, attack DS-13: no more wait at once than may, across replicas", func(ctx context.Context, h *House) error {
		const most = 5
		return h.replicas(func(s func(int) Store) error {
			var requests []store.Pushed
			var devices []store.Device
			var clients []store.Client
			for i := range crowd {
				requests = append(requests, store.Pushed{Hash: store.HashOf(fmt.Sprint("pushed ", i)), ClientID: ClientID, Created: Noon, Expires: Noon.Add(time.Minute)})
				devices, clients = append(devices, h.device()), append(clients, h.dynamic())
			}
			verbs := map[string]func(i int) error{
				"pushed requests": func(i int) error { return s(i).PushRequest(ctx, requests[i], most) },
				"devices":         func(i int) error { return s(i).StartDevice(ctx, devices[i], most) },
				"clients":         func(i int) error { return s(i).RegisterDynamic(ctx, clients[i], most, Noon) },
			}
			var err error
			for name, do := range verbs {
				won, rerr := race(crowd, store.ErrBusy, do)
				err = errors.Join(err, rerr, same(name, won, most))
			}
			return err
		})
	}},
}

// eventTypes are the types of the events behind a sequence number.
func (h *House) eventTypes(ctx context.Context, after int64) ([]audit.Type, error) {
	events, err := h.Events(ctx, store.EventQuery{After: after, Limit: 1000})
	var types []audit.Type
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types, err
}

// lastEvent is the newest sequence number.
func (h *House) lastEvent(ctx context.Context) (int64, error) {
	events, err := h.Events(ctx, store.EventQuery{Limit: 1000})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[len(events)-1].Seq, nil
}

// sorted is a list of scopes in order, for comparison.
func sorted(s oauth.Scopes) []string { return slices.Sorted(slices.Values(s)) }
