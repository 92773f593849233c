package datasets

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// textOf reads a prompt or a completion: text, or a list of messages.
func textOf(v value, name string) (Text, *RowError) {
	switch v.kind {
	case text, invalid:
		s, re := stringOf(v, name, "")
		return Text{Plain: s}, re
	case list:
		t := Text{Messages: make([]Message, len(v.items))}
		for i, item := range v.items {
			m, re := messageOf(item, name, fmt.Sprintf("message %d", i))
			if re != nil {
				return Text{}, re
			}
			t.Messages[i] = m
		}
		return t, nil
	}
	return Text{}, refuse(name, WrongType, "is %v, want text or a list of messages", v)
}

// messageOf reads {role, content}; at says which message it is.
func messageOf(v value, name, at string) (m Message, re *RowError) {
	if v.kind != object {
		return m, refuse(name, WrongType, "%s is %v, want an object with role and content", at, v)
	}
	role, content := v.field("role"), v.field("content")
	if role.kind == absent || content.kind == absent {
		return m, refuse(name, WrongType, "%s has the fields %s, want role and content", at, strings.Join(v.keys, ", "))
	}
	if m.Role, re = stringOf(role, name, at+": role "); re != nil {
		return m, re
	}
	if m.Role == "" {
		return m, refuse(name, WrongType, "%s: role is empty", at)
	}
	if calls := v.field("tool_calls"); calls.kind != absent && calls.kind != null && len(calls.items) > 0 {
		return m, refuse(name, WrongType, "%s has tool calls, want text only", at)
	}
	m.Content, re = contentOf(content, name, at+": content ")
	return m, re
}

// contentOf reads a message's content: text, or a list of parts of type text.
func contentOf(v value, name, at string) (string, *RowError) {
	if v.kind != list {
		return stringOf(v, name, at)
	}
	var all strings.Builder
	for i, part := range v.items {
		if kind := part.field("type"); kind.kind != text || kind.str != "text" {
			if kind.kind == text {
				return "", refuse(name, WrongType, "%spart %d is of type %q, want text", at, i, kind.str)
			}
			return "", refuse(name, WrongType, "%spart %d is %v, want an object of type text", at, i, part)
		}
		body := part.field("text")
		if body.kind == absent || body.kind == null {
			body = part.field("value")
		}
		s, re := stringOf(body, name, fmt.Sprintf("%spart %d ", at, i))
		if re != nil {
			return "", re
		}
		all.WriteString(s)
	}
	return all.String(), nil
}

// stringOf reads text that must be UTF-8; at opens the detail.
func stringOf(v value, name, at string) (string, *RowError) {
	switch v.kind {
	case text:
		if utf8.ValidString(v.str) {
			return v.str, nil
		}
		return "", refuse(name, InvalidText, "%shas byte %d that is not UTF-8", at, invalidByte(v.str))
	case invalid:
		return "", refuse(name, InvalidText, "%shas half a surrogate pair", at)
	case null:
		return "", refuse(name, NullValue, "%sis null, want text", at)
	}
	return "", refuse(name, WrongType, "%sis %v, want text", at, v)
}

// invalidByte returns the offset of the first byte that is not UTF-8.
func invalidByte(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}

// refuse makes a row error without its position, which the Reader fills in.
func refuse(name string, reason Reason, format string, args ...any) *RowError {
	return &RowError{Column: name, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// blank reports whether t has no character but white space.
func (t Text) blank() bool {
	for _, m := range t.Messages {
		if !isBlank(m.Content) {
			return false
		}
	}
	return isBlank(t.Plain)
}
