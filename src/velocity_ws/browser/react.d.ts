/**
 * Hooks of React (18 or newer) for velocity.js: one connection for a tree of components, rooms that are joined while
 * something that shows them is mounted, handlers of events.
 *
 * ```tsx
 * import { VelocityProvider, useEvent, useRoom, useVelocity } from "velocity-ws/react";
 *
 * function Chat() {
 *   const { ws, status } = useVelocity();
 *   const tea = useRoom("tea");
 *   useEvent("said", (data) => console.log(data.text), { room: "tea" });
 *   return <button disabled={tea.state !== "joined"} onClick={() => ws?.send("said", { text: "hello" }, { room: "tea" })} />;
 * }
 *
 * const App = () => <VelocityProvider url="/ws"><Chat /></VelocityProvider>;
 * ```
 *
 * Nothing is opened and nothing is joined while rendering, and so nothing on a server. What StrictMode mounts twice is
 * opened and joined once.
 */

import type { ReactElement, ReactNode } from "react";

import type {
  Address, Complaint, EventTypes, Gap, Incoming, LossReason, Options, RequestError, Status, StatusDetail, StreamEnd,
  StreamPiece, Velocity,
} from "./velocity.js";

/** A connection as a component sees it; it is rendered again with each status. */
export interface Connection<E extends EventTypes = any> {
  /** The client, for `send`, `request` and all else. `null` before the first effect of a component, and on a server. */
  ws: Velocity<E> | null;
  status: Status;
  /** What there is to know of the status; empty before the first one that is told. */
  detail: Partial<StatusDetail>;
}

export interface VelocityProviderProps {
  url?: Address | undefined;
  options?: Options | undefined;
  children?: ReactNode;
}

/** Opens a connection as `useVelocity(url, options)` does, for the components below it. */
export function VelocityProvider(props: VelocityProviderProps): ReactElement;

/**
 * The connection of the provider above, or, with a URL, one for as long as the component is mounted.
 *
 * Components with the same URL share one connection; it is opened for the first of them, and closed with 1000 after the
 * last. Another URL is another connection. A function may be another one in each render: the latest is called before
 * each attempt to connect, and the connection is the component's own.
 *
 * Options are read when a connection is opened, and other ones later change nothing, but for `protocols` and `refresh`:
 * where these are functions, the latest is called.
 *
 * @throws Error if there is neither a URL nor a provider.
 */
export function useVelocity<E extends EventTypes = any>(url?: Address, options?: Options): Connection<E>;

export interface ConnectionOptions {
  /** The client to use in place of the provider's, from `useVelocity(url)` or `connect`; `null` where it is not there yet. */
  ws?: Velocity<any> | null | undefined;
}

export interface UseRoomOptions extends ConnectionOptions {
  /** Sent along with the join; read when the component joins, and not again. */
  data?: unknown;
  /**
   * Loads what the component shows of the room, when it has joined and whenever messages are lost: see `JoinOptions`. The
   * latest one is called, if the component had one when it joined. If it throws at first, the room is `refused` with that
   * error.
   */
  state?: (() => unknown) | undefined;
}

/**
 * What is known of a room:
 *
 * - `idle`: there is none, as `null` was given in its place.
 * - `joining`: there is no answer on this connection, or none yet; `error` says why, where that is known. It is asked for
 *   again by itself. `answer` is an earlier one: of another connection, or of before `<Activity>` hid it.
 * - `joined`: `answer` is what the server has answered last.
 * - `refused`: by the server, at once or later, as it has put this client out; `error` has its `code`. It is asked for
 *   again when the component is mounted anew (give it another `key`).
 */
export type RoomState<Answer = any> = {
  /**
   * The last message that was sent to the room, where it is one of a kind (`broker.rooms`). A component that reads it is
   * rendered with each message, and may miss some of those that come together: `useEvent` hears all.
   */
  readonly last: Incoming | undefined;
} & (
  | { readonly state: "idle"; readonly answer: undefined; readonly error: undefined }
  | { readonly state: "joining"; readonly answer: Answer | undefined; readonly error: RequestError | undefined }
  | { readonly state: "joined"; readonly answer: Answer; readonly error: undefined }
  | { readonly state: "refused"; readonly answer: Answer | undefined; readonly error: RequestError }
);

/**
 * Be in a room for as long as the component is mounted. Several components may be in the same room; the last one that
 * goes leaves it.
 *
 * @param room Its name; with `null` it is in none.
 */
export function useRoom<Answer = any>(room: string | null | undefined, options?: UseRoomOptions): RoomState<Answer>;

export interface UseEventOptions extends ConnectionOptions {
  /** Hear only what was sent to this room. */
  room?: string | undefined;
}

type IsAny<T> = 0 extends 1 & T ? true : false;
type Receives<E> = E extends { receives?: infer T } ? NonNullable<T> : {};
type NamesOf<E> = IsAny<E> extends true ? never : keyof Receives<E> & string;
type Untyped<E> = IsAny<E> extends true ? string : never;

/** `useEvent`, for the events of an application. */
export interface UseEvent<E extends EventTypes = any> {
  (event: "status", handler: (status: Status, detail: StatusDetail) => void, options?: ConnectionOptions): void;
  (event: "binary", handler: (data: ArrayBuffer) => void, options?: ConnectionOptions): void;
  (event: "joined", handler: (room: string, answer: any) => void, options?: UseEventOptions): void;
  (event: "resync", handler: (room: string, reason: LossReason) => void, options?: UseEventOptions): void;
  (
    event: "left",
    handler: (data: { room: string; reason?: string }, message: Incoming) => void,
    options?: UseEventOptions,
  ): void;
  (event: "*", handler: (event: string, data: any, message: Incoming) => void, options?: UseEventOptions): void;
  (event: "error", handler: (error: Complaint, message?: Incoming) => void, options?: UseEventOptions): void;
  (event: "gap", handler: (data: Gap, message: Incoming) => void, options?: UseEventOptions): void;
  (event: "stream", handler: (piece: StreamPiece, message: Incoming) => void, options?: UseEventOptions): void;
  <Name extends NamesOf<E>>(
    event: Name,
    handler: (data: Receives<E>[Name], message: Incoming) => void,
    options?: UseEventOptions,
  ): void;
  <Data = any>(event: Untyped<E>, handler: (data: Data, message: Incoming) => void, options?: UseEventOptions): void;
}

/**
 * Hear an event for as long as the component is mounted, as `ws.on` does. The handler may be another one in each render;
 * it is the latest that hears.
 */
export const useEvent: UseEvent;

export interface UseStreamOptions extends ConnectionOptions {
  /** The room that the stream belongs to: see `StreamOptions`. Be in it with `useRoom`. */
  room?: string | undefined;
}

/** What is known of a stream: see `Stream`. What comes within 16 ms is rendered once. */
export interface StreamView<Part = string> {
  readonly text: string;
  readonly items: readonly Part[];
  readonly end: StreamEnd | null;
  /** Why nothing more comes. It is gone when something does, as after the page has joined the room again. */
  readonly error: RequestError | undefined;
  /** Ask the server to stop it; it is another function for another stream only. */
  readonly cancel: () => Promise<unknown>;
}

/**
 * Show a stream as it comes.
 *
 * @param id Its id; with `null` there is none, and nothing of it.
 */
export function useStream<Part = string>(id: string | null | undefined, options?: UseStreamOptions): StreamView<Part>;

/** The hooks, for the events of an application. */
export interface Hooks<E extends EventTypes> {
  VelocityProvider(props: VelocityProviderProps): ReactElement;
  useVelocity(url?: Address, options?: Options): Connection<E>;
  useRoom<Answer = any>(room: string | null | undefined, options?: UseRoomOptions): RoomState<Answer>;
  useEvent: UseEvent<E>;
  useStream<Part = string>(id: string | null | undefined, options?: UseStreamOptions): StreamView<Part>;
}

/**
 * The same hooks, for a compiler that knows what is sent; see `EventTypes`. Call it once, in a module of its own:
 *
 * ```ts
 * export const { VelocityProvider, useVelocity, useRoom, useEvent, useStream } = typedHooks<Events>();
 * ```
 */
export function typedHooks<E extends EventTypes>(): Hooks<E>;
