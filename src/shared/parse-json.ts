/** Reads JSON that others wrote, for a schema to look at. @returns undefined for what is none */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
