import Dispatch

/// Makes a call that waits. When the task is cancelled, `cancel` ends the call, and the error is `CancellationError`.
///
/// It waits on a serial queue of its own: for these Dispatch makes as many threads as it takes, while a concurrent one would share the
/// few that run tasks on Linux, one per core.
func blocking<T: Sendable>(
    cancel: @escaping @Sendable () -> Void,
    _ call: @escaping @Sendable () throws -> T
) async throws -> T {
    do {
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                DispatchQueue(label: "dev.fulcrum").async { continuation.resume(with: Result { try translated(call) }) }
            }
        } onCancel: {
            cancel()
        }
    } catch FulcrumError.cancelled where Task.isCancelled {
        throw CancellationError()
    }
}
