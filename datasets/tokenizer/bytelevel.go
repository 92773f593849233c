package tokenizer

// GPT-2's byte alphabet: every byte has a printable character, so that a
// vocabulary of bytes can be written as JSON strings. Printable Latin-1 stands
// for itself, the other 68 bytes for U+0100 and up, in order.
var byteChar, charByte = byteAlphabet()

func byteAlphabet() (chars [256]string, bytes map[rune]byte) {
	bytes = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		printable := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
		if !printable {
			r = next
			next++
		}
		chars[b] = string(r)
		bytes[r] = byte(b)
	}
	return chars, bytes
}

// unmapBytes appends to dst the bytes that token's characters stand for. It
// reports false, leaving dst as it was, if one is not of the byte alphabet.
func unmapBytes(dst []byte, token string) ([]byte, bool) {
	n := len(dst)
	for _, r := range token {
		b, ok := charByte[r]
		if !ok {
			return dst[:n], false
		}
		dst = append(dst, b)
	}
	return dst, true
}

// mapBytes writes s in the byte alphabet.
func mapBytes(s span) span {
	w := rewrite(s)
	for i := range len(s.text) {
		w.put(byteChar[s.text[i]], i, i+1)
	}
	return w.done()
}
