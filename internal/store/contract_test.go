package store_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

func openSQLite(ctx context.Context, dir string) (storetest.Store, error) {
	return store.Open(ctx, store.Config{Path: filepath.Join(dir, "bonafide.db")})
}

func TestContract(t *testing.T) { storetest.Run(t, openSQLite) }
