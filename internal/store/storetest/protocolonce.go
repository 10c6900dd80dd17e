package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
)

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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
				d, a, err := h.approved(ctx)
				if err != nil {
					return err
				}
				return once(n, store.ErrSpent, func(i int) error {
					r := ofDevice(d, a)
					r.Refresh.Hash = rival(a.Answer, 1, i).Hash
					_, err := s(i).RedeemDevice(ctx, r, Noon)
					return err
				})
			})
		})
	}},
	{"DEV-04, attack DV-02: of polls at one moment one is in time and all are booked", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
			return inFewRounds(func(n int) error {
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
	{"XCH-10, OIDC-05: an address gets one account, from however many issuers and replicas", func(ctx context.Context, h *House) error {
		return h.replicas(func(s func(int) Store) error {
			return inFewRounds(func(n int) error {
				h.n++
				email := fmt.Sprintf("ann%d@example.test", h.n)
				err := once(n, store.ErrConflict, func(i int) error {
					name := fmt.Sprint(email, " ", i)
					issuer := fmt.Sprintf("https://idp%d.example", i)
					return s(i).LinkIdentity(ctx, store.Identity{Issuer: issuer, Subject: email, UserID: name, Email: email, Created: Noon, LastSeen: Noon},
						&store.User{ID: name, Name: name, Email: strings.ToUpper(email[:1]) + email[1:], Created: Noon})
				})
				_, one := h.UserByEmail(ctx, email)
				return errors.Join(err, one)
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

// inFewRounds is inRounds for verbs whose rounds are longer: each has fixtures of
// its own and runs on two replicas.
func inFewRounds(do func(n int) error) error {
	for i := range rounds / 8 {
		if err := do(racers); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	if err := do(crowd); err != nil {
		return fmt.Errorf("with %d racers: %w", crowd, err)
	}
	return nil
}
