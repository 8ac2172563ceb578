// The numbers that rasters write and painters read: the row of an allocation plus one, and a bit for "an edge is here".

export const EDGE = 2 ** 31;
/** Pixels that something must be high or wide to get an edge of one of them. */
export const EDGE_FROM = 3;

/** The id without the bit. */
export function plainId(id) {
  return id & 0x7fffffff;
}
