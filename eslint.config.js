import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Which folders of src/ a folder may import from: data and imports go one way. */
const layers = {
  shared: [],
  'describe-api': ['shared'],
  simulator: ['shared', 'describe-api'],
  producer: ['shared', 'describe-api'],
  worker: ['shared', 'describe-api', 'webhook'],
  writer: ['shared', 'producer'],
  webhook: ['shared', 'describe-api'],
  run: ['shared', 'describe-api', 'simulator', 'producer', 'worker', 'writer'],
  service: ['shared', 'describe-api', 'simulator', 'producer', 'worker', 'writer', 'run'],
  dashboard: ['shared', 'describe-api', 'producer', 'writer', 'run', 'service'],
};
const folders = [...Object.keys(layers), 'cli'];

const layerRules = Object.entries(layers).map(([folder, allowed]) => ({
  files: [`src/${folder}/**/*.ts`],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: folders
          .filter((other) => other !== folder && !allowed.includes(other))
          .map((other) => ({
            group: [`**/${other}/**`],
            message: `${folder} may not import from ${other}.`,
          })),
      },
    ],
  },
}));

export default tseslint.config(
  { ignores: ['dist', 'coverage', 'node_modules'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      'no-console': 'error',
      'no-restricted-syntax': [
        'error',
        {
          selector:
            'CallExpression[callee.object.name="AbortSignal"][callee.property.name="any"] CallExpression[callee.object.name="AbortSignal"][callee.property.name="timeout"]',
          message:
            'Nothing but the combined signal holds this timeout, weakly: once it is collected it never fires.',
        },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      '@typescript-eslint/consistent-type-assertions': [
        'error',
        { assertionStyle: 'as', objectLiteralTypeAssertions: 'never' },
      ],
      '@typescript-eslint/no-unsafe-type-assertion': 'error',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
  ...layerRules,
  { files: ['*.js', '**/*.mjs'], ...tseslint.configs.disableTypeChecked },
);
