/* eslint-disable no-control-regex -- control characters are what is looked for */
const C0 = /[\u0000-\u0008\u000b-\u001f]/g;
const OTHERS =
  /[\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const CONTROL_PICTURES = 0x2400;

/**
 * Text of a manifest or an API, with what cannot be seen made visible: control characters as their pictures (`␛`);
 * those that turn the direction of what follows, and halves of characters, as `�`. Tabs and line ends stay.
 */
export function visible(text: string): string {
  return text
    .replace(C0, (character) => String.fromCharCode(CONTROL_PICTURES + character.charCodeAt(0)))
    .replace(OTHERS, '\ufffd');
}
