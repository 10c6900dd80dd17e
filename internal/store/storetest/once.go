package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
)

// How hard the races are: many short ones, then one crowd.
const (
	rounds = 200
	racers = 16
	crowd  = 64
)

// onceChecks are the clauses about what happens at most once.
var onceChecks = []Check{
	{"TOK-03, TOK-22, attack TK-02: a code is redeemed once by any number of racers", func(ctx context.Context, h *House) error {
		return inRounds(func(n int) error {
			a, err := h.code(ctx)
			if err != nil {
				return err
			}
			return once(n, store.ErrSpent, func(i int) error {
				r := redemption(a)
				r.Refresh.Hash = rival(a, 1, i).Hash
				_, err := h.RedeemCode(ctx, r, Noon)
				return err
			})
		})
	}},
	{"TOK-11, TOK-22, attack RF-02: a refresh token is rotated once and its family has one head", func(ctx context.Context, h *House) error {
		return inRounds(func(n int) error {
			a, err := h.family(ctx)
			if err != nil {
				return err
			}
			err = once(n, store.ErrSpent, func(i int) error {
				r := rotation(a, 1)
				r.New.Hash = rival(a, 2, i).Hash
				return h.RotateRefresh(ctx, r, Noon)
			})
			if err != nil {
				return err
			}
			heads := 0
			for i := range n {
				if r, _, err := h.FindRefresh(ctx, rival(a, 2, i), Noon); err == nil && !r.Used {
					heads++
				}
			}
			return same("heads of the family", heads, 1)
		})
	}},
	{"CAUTH-06, attack CA-01: an assertion identifier is spent once", func(ctx context.Context, h *House) error {
		i := 0
		return inRounds(func(n int) error {
			i++
			return once(n, store.ErrSpent, func(int) error {
				return h.SpendID(ctx, ClientID, store.HashOf(fmt.Sprint("jti ", i)), Noon.Add(time.Minute), Noon)
			})
		})
	}},
	{"CAUTH-06 an assertion identifier is spent across replicas", func(ctx context.Context, h *House) error {
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		err = once(racers, store.ErrSpent, func(i int) error {
			s := []Store{h.Store, other}[i%2]
			return s.SpendID(ctx, ClientID, store.HashOf("jti"), Noon.Add(time.Minute), Noon)
		})
		return errors.Join(err, other.Close())
	}},
	{"attack CA-08: two clients may use the same identifier", func(ctx context.Context, h *House) error {
		id := store.HashOf("jti")
		return errors.Join(
			is("first client", h.SpendID(ctx, "https://a.example/c", id, Noon.Add(time.Minute), Noon), nil),
			is("second client", h.SpendID(ctx, "https://b.example/c", id, Noon.Add(time.Minute), Noon), nil),
			is("first client again", h.SpendID(ctx, "https://a.example/c", id, Noon.Add(time.Minute), Noon), store.ErrSpent))
	}},
	{"attack CN-07: one decision gives one code", func(ctx context.Context, h *House) error {
		return inRounds(func(n int) error {
			a := h.answer()
			answers := make([]store.Answer, n)
			for i := range answers {
				answers[i] = h.answer()
				answers[i].Nonce = a.Nonce
			}
			err := once(n, store.ErrSpent, func(i int) error {
				if i%4 == 3 { // some press "no" at the same moment
					return h.DenyConsent(ctx, a.Nonce, a.NonceExpires, Noon)
				}
				return h.AnswerConsent(ctx, answers[i], Noon)
			})
			if err != nil {
				return err
			}
			codes := 0
			for _, a := range answers {
				if _, err := h.FindCode(ctx, a.Code.Hash, Noon); err == nil {
					codes++
				}
			}
			if codes > 1 {
				return fmt.Errorf("%d codes for one decision", codes)
			}
			return nil
		})
	}},
	{"attack JK-14: of many replicas that start at once one makes the first key", func(ctx context.Context, h *House) error {
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		key := func(i int) store.SigningKey {
			return store.SigningKey{KID: fmt.Sprint("kid ", i), Alg: "ES256", Wrapped: []byte("wrapped"), Created: Noon, Publish: Noon, Sign: Noon, Retire: Noon.Add(time.Hour)}
		}
		err = once(crowd, store.ErrConflict, func(i int) error {
			return []Store{h.Store, other}[i%2].AddSigningKey(ctx, key(i), "")
		})
		if err := errors.Join(err, other.Close()); err != nil {
			return err
		}
		keys, err := h.SigningKeys(ctx)
		if err != nil || len(keys) != 1 {
			return errors.Join(err, fmt.Errorf("%d keys", len(keys)))
		}
		return errors.Join(
			is("with the newest key in sight", h.AddSigningKey(ctx, key(100), keys[0].KID), nil),
			is("with an older key in sight", h.AddSigningKey(ctx, key(101), keys[0].KID), store.ErrConflict),
			is("a key identifier a second time", h.AddSigningKey(ctx, keys[0], "kid 100"), store.ErrConflict),
			is("a third key", h.AddSigningKey(ctx, key(102), "kid 100"), nil),
			is("with the second in sight", h.AddSigningKey(ctx, key(103), "kid 100"), store.ErrConflict))
	}},
	{"a name and a client identifier are taken once", func(ctx context.Context, h *House) error {
		return errors.Join(
			once(racers, store.ErrConflict, func(i int) error {
				return h.AddUser(ctx, store.User{ID: fmt.Sprint("mary ", i), Name: []string{"Mary", "mary"}[i%2], Created: Noon})
			}),
			once(racers, store.ErrConflict, func(int) error { return h.RegisterClient(ctx, store.Client{ID: "opaque"}, Noon) }))
	}},
}

// inRounds runs many small races and one large.
func inRounds(do func(n int) error) error {
	for i := range rounds {
		if err := do(racers); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	if err := do(crowd); err != nil {
		return fmt.Errorf("with %d racers: %w", crowd, err)
	}
	return nil
}
