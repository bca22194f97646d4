/** Judges calls of AWS by the policies of roles, as IAM does with identity-based policies: an explicit denial wins, what nothing allows is denied. */
import * as z from "zod";
import { resourcesOf, type Stack } from "./stack.ts";

/** One use of a permission. */
export interface Call {
  /** Such as `sqs:SendMessage`. */
  readonly action: string;
  readonly resource: string;
  /** Values of condition keys, such as `events:source`. */
  readonly context?: Readonly<Record<string, string>>;
}

const oneOrMore = z.union([z.string().transform((value) => [value]), z.array(z.string())]);
const conditionSchema = z.record(z.string(), z.record(z.string(), oneOrMore));
/** Closed: an element that is not known here, such as NotAction, is not passed over. */
const statementSchema = z.strictObject({
  Sid: z.string().optional(),
  Effect: z.enum(["Allow", "Deny"]),
  Action: oneOrMore,
  Resource: oneOrMore,
  Condition: conditionSchema.optional(),
});
export type Statement = z.output<typeof statementSchema>;

const documentSchema = z.strictObject({
  Version: z.literal("2012-10-17"),
  Id: z.string().optional(),
  Statement: z.union([z.array(statementSchema), statementSchema.transform((statement) => [statement])]),
});

/** What one role may do. */
export interface Role {
  readonly arn: string;
  readonly logicalId: string;
  /** Services that may take the role. */
  readonly principals: readonly string[];
  readonly statements: readonly Statement[];
}

const policiesSchema = z.array(z.object({ PolicyDocument: documentSchema })).default([]);
const trustSchema = z.object({
  Statement: z.array(z.object({ Principal: z.object({ Service: oneOrMore }) })),
});
const roleSchema = z.object({
  AssumeRolePolicyDocument: trustSchema,
  Policies: policiesSchema,
  // A policy that AWS maintains is nothing that a test can read.
  ManagedPolicyArns: z.array(z.string()).max(0).default([]),
});
const attachedSchema = z.object({ PolicyDocument: documentSchema, Roles: z.array(z.string()) });

/** The roles of a stack with their inline policies and those that are attached to them. */
export function rolesOf({ resources }: Stack): readonly Role[] {
  const attached = resources
    .filter(({ type }) => type === "AWS::IAM::Policy")
    .map(({ properties }) => attachedSchema.parse(properties));
  return resources
    .filter(({ type }) => type === "AWS::IAM::Role")
    .map(({ id, arn, logicalId, properties }) => {
      const { AssumeRolePolicyDocument, Policies } = roleSchema.parse(properties);
      const documents = [...Policies, ...attached.filter(({ Roles }) => Roles.includes(id))];
      const principals = AssumeRolePolicyDocument.Statement.flatMap(({ Principal }) => Principal.Service);
      return {
        arn,
        logicalId,
        principals,
        statements: documents.flatMap(({ PolicyDocument }) => PolicyDocument.Statement),
      };
    });
}

const resourcePolicySchema = z.object({ Statement: statementSchema.extend({ Principal: z.literal("*") }) });

/** What the bus itself says of those who put events on it; whom a statement is about stands in its condition. */
export function busStatementsOf(stack: Stack): readonly Statement[] {
  return resourcesOf(stack, "AWS::Events::EventBusPolicy").map(({ properties }) => {
    const { Principal: _everybody, ...statement } = resourcePolicySchema.parse(properties).Statement;
    return statement;
  });
}

export function isAllowed(statements: readonly Statement[], call: Call): boolean {
  const matching = statements.filter((statement) => matches(statement, call));
  return matching.some(({ Effect }) => Effect === "Allow") && matching.every(({ Effect }) => Effect === "Allow");
}

/** What of the allowed is used by no call: each action and each resource pattern of a statement counts by itself. */
export function unusedPermissions(statements: readonly Statement[], calls: readonly Call[]): readonly Call[] {
  const single = statements
    .filter(({ Effect }) => Effect === "Allow")
    .flatMap((statement) =>
      statement.Action.flatMap((action) => statement.Resource.map((resource) => ({ statement, action, resource }))),
    );
  return single
    .filter(({ statement, action, resource }) => {
      const narrowed = { ...statement, Action: [action], Resource: [resource] };
      return !calls.some((call) => matches(narrowed, call));
    })
    .map(({ action, resource }) => ({ action, resource }));
}

function matches({ Action, Resource, Condition = {} }: Statement, { action, resource, context = {} }: Call): boolean {
  const isActed = Action.some((pattern) => isLike(action.toLowerCase(), pattern.toLowerCase()));
  return isActed && Resource.some((pattern) => isLike(resource, pattern)) && holds(Condition, context);
}

/** Every key of every operator has to hold. */
function holds(condition: z.output<typeof conditionSchema>, context: Readonly<Record<string, string>>): boolean {
  return Object.entries(condition).every(([operator, keys]) =>
    Object.entries(keys).every(([key, values]) => {
      const compare = OPERATORS[operator];
      if (compare === undefined) throw new Error(`the condition operator ${operator} is not known here`);
      return compare(context[key], values);
    }),
  );
}

type Compare = (given: string | undefined, values: readonly string[]) => boolean;

const some =
  (compare: (given: string, value: string) => boolean): Compare =>
  (given, values) =>
    given !== undefined && values.some((value) => compare(given, value));
/** Holds without the key, too. */
const none =
  (compare: (given: string, value: string) => boolean): Compare =>
  (given, values) =>
    !some(compare)(given, values);
const isEqual = (given: string, value: string) => given === value;

const OPERATORS: Readonly<Record<string, Compare>> = {
  StringEquals: some(isEqual),
  StringNotEquals: none(isEqual),
  StringLike: some(isLike),
  ArnEquals: some(isLike),
  ArnNotEquals: none(isLike),
  ArnLike: some(isLike),
  ArnNotLike: none(isLike),
};

/** `*` stands for any characters, `?` for one. */
function isLike(text: string, pattern: string): boolean {
  const escaped = pattern.replaceAll(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", ".*").replaceAll("?", ".")}$`, "s").test(text);
}
