// @ts-check
/**
 * Sign-in with e-mail and password at the Supabase project this server uses.
 *
 * Supabase's own library keeps the session and refreshes it; the server tells in the page which project it is. Where
 * it does not, `Account.ofThisPage()` is null and the page asks for a token instead.
 *
 * @typedef {{access_token: string, user: {email?: string}}} Session
 * @typedef {{code?: string, status?: number, name?: string, message: string}} AuthFault
 * @typedef {{data: {session: Session | null}, error: AuthFault | null}} Answer
 *
 * @typedef {object} Auth what is used of supabase-js
 * @property {() => Promise<Answer>} getSession
 * @property {(given: {email: string, password: string}) => Promise<Answer>} signInWithPassword
 * @property {(given: {email: string, password: string, options: {emailRedirectTo: string}}) => Promise<Answer>} signUp
 * @property {(how: {scope: 'local'}) => Promise<unknown>} signOut
 * @property {(heard: (event: string, session: Session | null) => void) => unknown} onAuthStateChange
 */

/** Sentences for the codes of Supabase Auth ("Error codes"); others are answered with Auth's own words. */
const FAULTS = new Map(Object.entries({
  invalid_credentials: 'The e-mail address or the password is wrong.',
  user_already_exists: 'There is already an account with this address. Sign in instead.',
  email_exists: 'There is already an account with this address. Sign in instead.',
  email_not_confirmed: 'This address is not confirmed yet. Open the link in the e-mail you were sent.',
  email_address_invalid: 'This does not look like an e-mail address.',
  validation_failed: 'This does not look like an e-mail address.',
  signup_disabled: 'New accounts cannot be made here. Ask whoever runs this page.',
  email_provider_disabled: 'Sign-in with a password is switched off here. Ask whoever runs this page.',
  user_banned: 'This account is blocked. Ask whoever runs this page.',
  over_request_rate_limit: 'Too many tries. Wait a minute, then try again.',
  over_email_send_rate_limit: 'Too many e-mails were asked for. Wait a while, then try again.',
}));

/** Sign-in or sign-up was refused; the message is a sentence for people. */
export class AccountError extends Error {}

export class Account {
  /** @param {Auth} auth @param {(email: string | null) => void} [changed] */
  constructor(auth, changed = () => {}) {
    this.auth = auth;
    this.changed = changed;
    // Calls to the library from inside its own callback would wait for each other for ever.
    auth.onAuthStateChange((_event, session) => this.changed(session ? session.user.email ?? '' : null));
  }

  /** The account of the project named in the page; null where there is none. */
  static ofThisPage() {
    const told = document.querySelector('meta[name=supabase]')?.getAttribute('content');
    /** @type {any} */
    const library = /** @type {any} */ (globalThis).supabase;
    if (!told || !library) return null;
    const { url, key } = JSON.parse(told);
    // The name holds the port too: a project on another port of this computer is another project.
    const client = library.createClient(url, key, { auth: { storageKey: `voice-${new URL(url).host}` } });
    return new Account(client.auth);
  }

  /** A token good for another minute at least, refreshed if need be; empty when nobody is signed in. */
  async token() {
    const { data } = await this.auth.getSession();
    return data.session?.access_token ?? '';
  }

  /** @param {string} email @param {string} password @throws {AccountError} */
  async signIn(email, password) { answered(await this.auth.signInWithPassword({ email, password })); }

  /**
   * @param {string} email
   * @param {string} password
   * @returns {Promise<boolean>} false: a link was mailed that has to be opened first
   * @throws {AccountError}
   */
  async signUp(email, password) {
    const emailRedirectTo = location.origin + location.pathname;
    return answered(await this.auth.signUp({ email, password, options: { emailRedirectTo } })) !== null;
  }

  /** Sign out in this browser; elsewhere the person stays signed in. */
  async signOut() { await this.auth.signOut({ scope: 'local' }); }
}

/** @param {Answer} answer @returns {Session | null} */
function answered({ data, error }) {
  if (!error) return data.session;
  if (error.name === 'AuthRetryableFetchError' || error.status === 0) throw new AccountError('The sign-in service does not answer. Check your connection, then try again.');
  const known = FAULTS.get(error.code ?? '');
  throw new AccountError(known ?? (error.message ? `${error.message.replace(/\.$/, '')}.` : 'That did not work. Try again in a moment.'));
}
