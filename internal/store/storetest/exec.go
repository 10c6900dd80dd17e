package storetest

import (
	"database/sql"
	"errors"
)

// Exec runs a statement on a file of SQLite behind the back of whoever uses it.
func Exec(path, query string) error {
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	_, err = db.Exec(query)
	return errors.Join(err, db.Close())
}
