package storetest

import (
	"context"

	"github.com/bonafide-id/bonafide/internal/store"
)

// Migrate brings a database up to date.
func Migrate(address string) error {
	s, err := store.Open(context.Background(), store.Config{Path: address})
	if err != nil {
		return err
	}
	return s.Close()
}
