package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Accounts: add, list, password, disable, enable, connections, end, link"}
	cmd.AddCommand(a.userAdd(), a.userList(), a.userPassword(), a.userSwitch("disable"), a.userSwitch("enable"),
		a.userConnections(), a.userEnd(), a.userLink())
	return cmd
}

func (a *app) userAdd() *cobra.Command {
	var email, file string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a local account",
		Long:  "Adds a local account. The password is asked for, or read from --password-file\n(\"-\" is standard input); it is never an argument, where others could see it.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd, file)
			if err != nil {
				return err
			}
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				u, err := login.NewUser(args[0], email, password, time.Now())
				if err != nil {
					return err
				}
				if err := s.AddUser(ctx, u); errors.Is(err, store.ErrConflict) {
					return fmt.Errorf("there is an account named %s already", args[0])
				} else if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "added  %s\n", u.Name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&email, "email", "", "the person's address; providers with link: email may lead to the account by it")
	cmd.Flags().StringVar(&file, "password-file", "", "read the password from the first line of this file")
	return cmd
}

func (a *app) userList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List local accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
				var rows [][]string
				for after := ""; ; {
					users, err := s.Users(ctx, after, 500)
					if err != nil {
						return err
					}
					for _, u := range users {
						state := "enabled"
						if u.Disabled {
							state = "disabled"
						}
						rows = append(rows, []string{u.Name, u.Email, state, u.Created.Format(time.DateOnly), u.ID})
						after = u.ID
					}
					if len(users) < 500 {
						return table(cmd.OutOrStdout(), asJSON, []string{"name", "email", "state", "since", "id"}, rows)
					}
				}
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func (a *app) userPassword() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "password NAME",
		Short: "Set a new password; ends the account's sessions and connections",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd, file)
			if err != nil {
				return err
			}
			hash, err := login.HashPassword(password)
			if err != nil {
				return err
			}
			return a.withUser(cmd, args[0], func(ctx context.Context, s *store.Store, u store.User) error {
				err := a.endAccount(cmd, s, u, func(ctx context.Context, s *store.Store) error { return s.SetPassword(ctx, u.ID, hash, time.Now()) })
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "changed  %s: sessions and connections have ended\n", u.Name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "read the password from the first line of this file")
	return cmd
}

func (a *app) userSwitch(verb string) *cobra.Command {
	short := "Disable an account: it cannot sign in, and its sessions and connections end"
	if verb == "enable" {
		short = "Let a disabled account sign in again"
	}
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUser(cmd, args[0], func(ctx context.Context, s *store.Store, u store.User) error {
				var err error
				if verb == "enable" {
					err = s.EnableUser(ctx, u.ID, time.Now())
				} else {
					err = a.endAccount(cmd, s, u, func(ctx context.Context, s *store.Store) error { return s.DisableUser(ctx, u.ID, time.Now()) })
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%sd  %s\n", verb, u.Name)
				return nil
			})
		},
	}
}

func (a *app) withUser(cmd *cobra.Command, name string, do func(context.Context, *store.Store, store.User) error) error {
	return a.withStore(cmd, func(ctx context.Context, s *store.Store) error {
		u, err := s.UserByName(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("there is no account named %s", name)
		}
		if err != nil {
			return err
		}
		return do(ctx, s, u)
	})
}

// readPassword asks twice on a terminal, or reads the first line of a file.
func readPassword(cmd *cobra.Command, file string) (string, error) {
	switch {
	case file == "-":
		return firstLine(cmd.InOrStdin())
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return firstLine(f)
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return "", usage(errors.New("there is no terminal to ask for the password; use --password-file"))
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Password: ")
	one, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Once more: ")
	two, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	if string(one) != string(two) {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return string(one), nil
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
