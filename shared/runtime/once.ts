/** Makes something at its first use and keeps it: what a function needs for as long as its instance is warm. */
export function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
