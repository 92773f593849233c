// Writes components.json: what the reference implementation makes of small
// tokenizers, one or more for each component that this package understands.
//
//   npm install --no-save tokenizers@0.23.2 && node generate.mjs
import fs from 'node:fs';
import { createRequire } from 'node:module';
const require = createRequire(process.cwd() + '/');
const { Tokenizer } = require('tokenizers');
const version = require('tokenizers/package.json').version;

// Every pair of characters of the alphabet has a merge, so that each place where
// text is split shows in the ids.
const alphabet = ['a', 'b', 'A', '1', '2', '½', '-', '!', '+', ' ', '▁', '\n', 'é', 'e', '\u0301', 'i', '日', '_'];
const pairs = alphabet.flatMap((x) => alphabet.map((y) => [x, y]));
const hex = [...Array(256).keys()].map((b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`);
const vocab = (...tokens) => Object.fromEntries(tokens.flat().map((t, i) => [t, i]));
const chars = { type: 'BPE', unk_token: '<unk>', vocab: vocab('<unk>', '<s>', '</s>', alphabet, pairs.map((p) => p.join(''))), merges: pairs };

const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
let spare = 256;
const bytes = [...Array(256).keys()].map((b) => String.fromCodePoint(printable(b) ? b : spare++));
const byteMerges = ['Ġ a', 'Ġ b', 'a b', 'Ġa b', '1 2', "' s", '! !', 'Ċ Ċ', 'Ġ Ġ', 'Ã ©', 'æ Ĺ', 'æĹ ¥', 'ĠĠ ĠĠ'];
const byteModel = { vocab: vocab('<eos>', bytes, byteMerges.map((m) => m.replace(' ', ''))), merges: byteMerges };
const llama = {
  type: 'BPE', unk_token: '<unk>', fuse_unk: true, byte_fallback: true,
  vocab: vocab('<unk>', '<s>', '</s>', hex, alphabet, '▁a', 'ab', '▁ab', '▁▁'),
  merges: [['▁', 'a'], ['a', 'b'], ['▁a', 'b'], ['▁', '▁']],
};

const texts = [
  '', 'a', ' ', 'ab', 'a b', ' ab  ba ', 'aab12 1 21', 'a-b!!--a+b', '--', '!a', 'a\n\n b\n', 'é e\u0301 é', '½12½', '日日 日', 'a_b A_A',
  '▁a▁▁b', 'AbA', '  a', 'a  ', "ab's a'S", 'x', 'axxb xx', '👍🏽 a', '<s>a</s> b<s>', ' <s> a', '<s>  </s>', 'i1 i', 'İa', 'ﬁ ①', '\u00a0a\u3000b', 'a<0x41>b',
];
const split = (pattern, behavior, invert = false) => ({ type: 'Split', pattern, behavior, invert });
const sequence = (list, ...members) => ({ type: 'Sequence', [list]: members });
const added = (content, id, more = {}) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...more });
const cases = [];
const add = (name, model, parts = {}) => cases.push({ name, model, parts });

add('model: characters', 'chars');
add('model: fuse_unk', 'chars', { model: { fuse_unk: true } });
add('model: no unk_token', 'chars', { model: { unk_token: null } });
add('model: ignore_merges', 'chars', { model: { ignore_merges: true, merges: [] } });
add('model: byte_fallback', 'llama');
add('model: byte_fallback without fuse_unk', 'llama', { model: { fuse_unk: false } });
add('model: byte_fallback with a byte missing', 'chars', { model: { byte_fallback: true, fuse_unk: true } });
add('model: end_of_word_suffix', 'chars', { model: { end_of_word_suffix: '!' }, pre_tokenizer: { type: 'WhitespaceSplit' } });
add('model: continuing_subword_prefix', 'chars', { model: { continuing_subword_prefix: '-', merges: [['a', '-b'], ['a', '-a'], ['b', '-a']] }, pre_tokenizer: { type: 'WhitespaceSplit' } });
for (const type of ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase']) add(`normalizer: ${type}`, 'chars', { normalizer: { type } });
add('normalizer: Prepend', 'chars', { normalizer: { type: 'Prepend', prepend: '▁' } });
add('normalizer: Replace string', 'chars', { normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' } });
add('normalizer: Replace regex', 'chars', { normalizer: { type: 'Replace', pattern: { Regex: '[ab]+' }, content: '-' } });
add('normalizer: Strip left', 'chars', { normalizer: { type: 'Strip', strip_left: true, strip_right: false } });
add('normalizer: Strip both', 'chars', { normalizer: { type: 'Strip', strip_left: true, strip_right: true } });
add('normalizer: Sequence', 'chars', { normalizer: sequence('normalizers', { type: 'NFKC' }, { type: 'Lowercase' }, { type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }) });
for (const behavior of ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']) {
  for (const invert of [false, true]) {
    add(`pre_tokenizer: Split ${behavior} ${invert ? 'inverted' : 'plain'}`, 'chars', { pre_tokenizer: split({ String: '-' }, behavior, invert) });
    add(`pre_tokenizer: Split regex ${behavior} ${invert ? 'inverted' : 'plain'}`, 'chars', { pre_tokenizer: split({ Regex: '\\p{L}+|\\d' }, behavior, invert) });
  }
  add(`pre_tokenizer: Punctuation ${behavior}`, 'chars', { pre_tokenizer: { type: 'Punctuation', behavior } });
}
add('pre_tokenizer: Split with a nested class', 'chars', { pre_tokenizer: split({ Regex: ' ?[^(\\s|[!+])]+' }, 'Isolated') });
add('pre_tokenizer: Split with possessive repeats', 'chars', { pre_tokenizer: split({ Regex: ' ?+\\p{L}++|\\s+(?!\\S)' }, 'Isolated') });
add('pre_tokenizer: Digits together', 'chars', { pre_tokenizer: { type: 'Digits', individual_digits: false } });
add('pre_tokenizer: Digits apart', 'chars', { pre_tokenizer: { type: 'Digits', individual_digits: true } });
add('pre_tokenizer: Whitespace', 'chars', { pre_tokenizer: { type: 'Whitespace' } });
add('pre_tokenizer: WhitespaceSplit', 'chars', { pre_tokenizer: { type: 'WhitespaceSplit' } });
for (const prepend_scheme of ['always', 'first', 'never']) {
  for (const whole of [true, false]) {
    const m = { type: 'Metaspace', replacement: '▁', prepend_scheme, split: whole };
    add(`pre_tokenizer: Metaspace ${prepend_scheme} ${whole ? 'split' : 'whole'}`, 'llama', { added: [added('<s>', 1), added('</s>', 2)], pre_tokenizer: m, decoder: m });
  }
}
add('pre_tokenizer: Metaspace in old form', 'llama', { pre_tokenizer: { type: 'Metaspace', replacement: '▁', str_rep: '▁', add_prefix_space: true } });
add('pre_tokenizer: Sequence', 'chars', { pre_tokenizer: sequence('pretokenizers', { type: 'WhitespaceSplit' }, sequence('pretokenizers', { type: 'Punctuation' }, { type: 'Digits', individual_digits: true })) });
for (const add_prefix_space of [false, true]) {
  for (const use_regex of [false, true]) {
    const b = { type: 'ByteLevel', add_prefix_space, trim_offsets: true, use_regex };
    add(`ByteLevel ${add_prefix_space ? 'with' : 'without'} a space in front, ${use_regex ? 'with' : 'without'} regex`, 'bytes', { pre_tokenizer: b, decoder: b });
  }
}
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
add('ByteLevel: ignore_merges', 'bytes', { model: { ignore_merges: true, merges: [] }, pre_tokenizer: byteLevel, decoder: byteLevel });
add('ByteLevel: digits apart first', 'bytes', { pre_tokenizer: sequence('pretokenizers', { type: 'Digits', individual_digits: true }, { ...byteLevel, add_prefix_space: true }), decoder: byteLevel });
add('ByteLevel: before another step', 'bytes', { pre_tokenizer: sequence('pretokenizers', byteLevel, split({ String: 'Ġ' }, 'Isolated')), decoder: byteLevel });
add('ByteLevel: bytes missing', 'bytes', { model: { vocab: vocab('Ġ', 'a', 'b', 'Ġa'), merges: ['Ġ a'] }, pre_tokenizer: byteLevel, decoder: byteLevel });
add('added: raw', 'chars', { added: [added('<s>', 1), added('</s>', 2)] });
add('added: normalized after Prepend', 'llama', { added: [added('<s>', 1, { normalized: true }), added('</s>', 2)], normalizer: { type: 'Prepend', prepend: '▁' } });
add('added: lstrip', 'chars', { added: [added('<s>', 1, { lstrip: true })] });
add('added: rstrip', 'chars', { added: [added('<s>', 1, { rstrip: true })] });
add('added: lstrip and rstrip', 'chars', { added: [added('<s>', 1, { lstrip: true, rstrip: true }), added('</s>', 2, { lstrip: true })] });
add('added: single_word', 'chars', { added: [added('ab', undefined, { single_word: true, special: false })] });
add('added: longest first', 'chars', { added: [added('a', undefined, { special: false }), added('ab', undefined, { special: false }), added('a b', -1, { special: false })] });
add('added: lower case', 'chars', { added: [added('AB', -1, { normalized: true, special: false })], normalizer: { type: 'Lowercase' } });
const llamaDecoder = sequence('decoders', { type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 });
const llamaNormalizer = sequence('normalizers', { type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' });
add('decoder: Llama 2', 'llama', { added: [added('<s>', 1), added('</s>', 2)], normalizer: llamaNormalizer, decoder: llamaDecoder });
add('decoder: Strip at the end', 'chars', { decoder: { type: 'Strip', content: 'b', start: 0, stop: 1 } });
add('decoder: Replace regex', 'chars', { decoder: { type: 'Replace', pattern: { Regex: '[ab]' }, content: '' } });
add('decoder: Fuse', 'chars', { decoder: { type: 'Fuse' } });

const models = { chars, bytes: byteModel, llama };
const out = { format: 1, made_by: 'generate.mjs', reference: `npm tokenizers@${version}`, models, texts, cases: [] };
for (const c of cases) {
  const model = { ...models[c.model], ...c.parts.model };
  const size = Object.keys(model.vocab).length;
  const tokens = (c.parts.added ?? []).map((t) => ({ ...t, id: model.vocab[t.content] ?? size }));
  const { added: _a, model: _m, ...parts } = c.parts;
  const file = { version: '1.0', truncation: null, padding: null, added_tokens: tokens, normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...parts, model };
  const t = Tokenizer.fromString(JSON.stringify(file));
  const ids = [], decoded = [], plain = [];
  for (const text of texts) {
    const got = (await t.encode(text, null, { addSpecialTokens: false })).getIds();
    ids.push(got);
    decoded.push(await t.decode(got, false));
    plain.push(await t.decode(got, true));
  }
  const { model: _v, ...rest } = file;
  out.cases.push({ name: c.name, model: c.model, model_parts: c.parts.model ?? {}, file: rest, ids, decoded, plain });
}
const lines = out.cases.map((c) => '  ' + JSON.stringify(c)).join(',\n');
fs.writeFileSync(new URL('components.json', import.meta.url), JSON.stringify({ ...out, cases: [] }).replace('"cases":[]', '"cases":[\n' + lines + '\n]') + '\n');
console.log(`${out.cases.length} cases, ${texts.length} texts each`);
