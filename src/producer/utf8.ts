import { isUtf8 } from 'node:buffer';

/** A text, and whether its bytes were UTF-8; where they were not it holds U+FFFD. */
export interface DecodedText {
  readonly text: string;
  readonly isValid: boolean;
}

export function decodeUtf8(bytes: Buffer): DecodedText {
  return { text: bytes.toString('utf8'), isValid: isUtf8(bytes) };
}

/**
 * Decodes bytes that came as a string with one character for each byte (latin1). So a parser can be kept
 * from decoding, which would replace what is not UTF-8 without a word.
 */
export function decodeByteString(bytes: string): DecodedText {
  return isAscii(bytes) ? { text: bytes, isValid: true } : decodeUtf8(Buffer.from(bytes, 'latin1'));
}

/** Whether such a string is its own text. */
export function isAscii(bytes: string): boolean {
  return !/[\x80-\xff]/.test(bytes);
}
