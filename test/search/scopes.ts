/** The systems that are searched: small ones of which every state is seen, and a large one that is searched as far as time allows. */
import type { Rules } from "./transitions.ts";

const BASE: Rules = {
  ordinals: 3,
  passes: 2,
  late: 1,
  replicasMin: 0,
  replicasMax: 1,
  replicas: 1,
  grown: true,
  acts: 2,
  users: [],
  instances: false,
  lagging: false,
  maxUnavailable: undefined,
  autohealing: false,
  falling: false,
  failing: false,
  losing: true,
  refusing: true,
};

export interface Scope {
  readonly name: string;
  readonly rules: Rules;
}

/** Each is searched to its end. Wider ones take too long for every day: see `npm run search`. */
export const SCOPES: readonly Scope[] = [
  {
    name: "two passes and a late call, while users scale a pool of up to two machines twice",
    rules: { ...BASE, ordinals: 4, replicasMax: 2, replicas: 2, refusing: false },
  },
  {
    name: "two passes and a late call over a new pool of up to one machine, which users scale, pause and take from",
    rules: { ...BASE, replicas: 0, grown: false, acts: 2, users: ["pause", "delete"] },
  },
  {
    name: "a pass and a late call, while machines are taken away, detached or relabelled, and claims and pools removed",
    rules: {
      ...BASE,
      passes: 1,
      users: ["delete", "detach", "relabel", "pause", "forget", "deletePool", "orphanPool"],
    },
  },
  {
    name: "two passes over the roll-out of a template to two machines, one of them at a time",
    rules: {
      ...BASE,
      late: 0,
      replicasMin: 2,
      replicasMax: 2,
      replicas: 2,
      users: ["edit"],
      instances: true,
      lagging: true,
      maxUnavailable: 1,
      losing: false,
      refusing: false,
    },
  },
  {
    name: "a pass and a late call, while users edit the template and the machine falls and comes back",
    rules: {
      ...BASE,
      passes: 1,
      acts: 3,
      users: ["edit"],
      instances: true,
      lagging: true,
      maxUnavailable: 1,
      falling: true,
    },
  },
  {
    name: "a pass and a late call over a machine that fails and is healed",
    rules: { ...BASE, passes: 1, users: ["delete", "pause"], failing: true, autohealing: true },
  },
];

const FALLING = { instances: true, lagging: true, maxUnavailable: 1, falling: true } as const;

/** The same subjects with more machines, more acts and more that may go wrong, and all of them at once. */
export function largeScopes(replicas: number, acts: number): readonly Scope[] {
  const base: Rules = { ...BASE, ordinals: Math.min(5, replicas + 2), replicasMax: replicas, replicas, acts };
  const everything: Rules = {
    ...base,
    ...FALLING,
    late: 2,
    users: ["pause", "edit", "delete", "detach", "relabel", "deletePool", "orphanPool", "forget"],
    autohealing: true,
    failing: true,
  };
  return [
    { name: "scaling", rules: { ...base, users: ["delete"] } },
    {
      name: "machines, claims and pools taken away",
      rules: { ...base, users: ["delete", "detach", "relabel", "pause", "forget", "deletePool", "orphanPool"] },
    },
    { name: "roll-outs", rules: { ...base, ...FALLING, users: ["edit", "pause"] } },
    { name: "healing", rules: { ...base, users: ["delete", "pause"], failing: true, autohealing: true } },
    { name: "everything at once", rules: everything },
  ];
}
