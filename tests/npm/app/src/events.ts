export interface Events {
  receives: { said: { text: string }; moved: { x: number; y: number } };
  sends: { say: { room: string; text: string } };
  requests: { double: { data: number; reply: number }; load: { reply: string } };
}
