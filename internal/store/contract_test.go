package store_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

func openSQLite(ctx context.Context, dir string) (storetest.Store, error) {
	return store.Open(ctx, store.Config{Path: filepath.Join(dir, "bonafide.db")})
}

func TestContract(t *testing.T) { storetest.Run(t, openSQLite) }

func TestContractOnPostgres(t *testing.T) { storetest.Run(t, openPostgres(t)) }

// openPostgres gives each directory a database of its own.
func openPostgres(t *testing.T) storetest.Open {
	var mu sync.Mutex
	addresses := map[string]string{}
	return func(ctx context.Context, dir string) (storetest.Store, error) {
		mu.Lock()
		defer mu.Unlock()
		address, ok := addresses[dir]
		if !ok {
			var err error
			if address, err = pgtest.Shared(t).Copy(ctx, "bonafide", storetest.Migrate); err != nil {
				return nil, err
			}
			addresses[dir] = address
		}
		return store.Open(ctx, store.Config{Path: address})
	}
}
