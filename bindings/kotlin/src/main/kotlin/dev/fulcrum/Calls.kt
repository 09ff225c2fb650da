package dev.fulcrum

import kotlinx.coroutines.CancellableContinuation
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Runnable
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlin.coroutines.EmptyCoroutineContext
import kotlin.coroutines.resumeWithException

/** Calls into the library with its errors as [FulcrumException]. */
internal inline fun <T> translated(call: () -> T): T =
    try {
        call()
    } catch (error: NativeException) {
        throw error.translated()
    }

/**
 * Makes a call that waits, on a thread that may. When the coroutine is cancelled, [cancel] ends the call, and what it still
 * returns goes to [discard].
 */
internal suspend fun <T> blocking(
    cancel: () -> Unit,
    discard: (T & Any) -> Unit = {},
    call: () -> T,
): T =
    suspendCancellableCoroutine { continuation ->
        continuation.invokeOnCancellation { cancel() }
        val work = Runnable { continuation.resumeWith(discard, call) }
        Dispatchers.IO.dispatch(EmptyCoroutineContext, work)
    }

/**
 * Makes a call that waits, on this thread: for a coroutine that runs where threads may wait. When the coroutine is cancelled,
 * [cancel] ends the call.
 */
internal suspend fun <T> waiting(
    cancel: () -> Unit,
    call: () -> T,
): T =
    suspendCancellableCoroutine { continuation ->
        continuation.invokeOnCancellation { cancel() }
        continuation.resumeWith({}, call)
    }

private fun <T> CancellableContinuation<T>.resumeWith(
    discard: (T & Any) -> Unit,
    call: () -> T,
) {
    val result = runCatching { translated(call) }
    result.onSuccess { resume(it) { _, value, _ -> value?.let(discard) } }
    result.onFailure { resumeWithException(it) }
}

/** Keeps an app's exception out of the library, which called the app: it goes where uncaught ones go. */
@Suppress("TooGenericExceptionCaught")
internal inline fun caught(call: () -> Unit) {
    try {
        call()
    } catch (error: Throwable) {
        val thread = Thread.currentThread()
        thread.uncaughtExceptionHandler.uncaughtException(thread, error)
    }
}
