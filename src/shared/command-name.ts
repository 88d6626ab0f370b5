let name = 'bulk-describe';

/** What this process is, for other processes and their people: its command's name, and nothing of its arguments. */
export function commandName(): string {
  return name;
}

/** Names the command that this process executes; for the command line, before that begins. */
export function nameCommand(command: string): void {
  name = `bulk-describe ${command}`;
}
